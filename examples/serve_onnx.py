"""An exported model behind HTTP, with Python's own server and onnxruntime; nothing of tunelater or PyTorch is needed.

    tunelater export run model.onnx --at point.json
    python examples/serve_onnx.py model.onnx 8000
    curl localhost:8000 -d '{"rows": [{"TSH": 12.5, "sex": "F"}], "prior": 0.02}'

Cells that a row leaves out are missing. Lambda, prior and threshold are the operating point's, unless a request has its
own (`"lambda": {"gamma": 0.1}`): a need that has changed is another request, not another model.
"""

import json
import math
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnxruntime


class Model:
    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path)
        told = self.session.get_modelmeta().custom_metadata_map
        self.columns = json.loads(told["tunelater.inputs"])
        self.classes = json.loads(told["tunelater.classes"])
        self.point = json.loads(told["tunelater.points"])[0]  # export with --at point.json

    def answer(self, request: dict) -> list[dict]:
        """Probability, log-odds and prediction of each row. Raises ValueError for a request that is none."""
        rows, lam = request.get("rows"), self.point["lam"] | request.get("lambda", {})
        prior = float(request.get("prior", self.point["prior"]))
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("'rows' is a list of objects, one for each sample")
        if not 0 < prior < 1 or lam.keys() != self.point["lam"].keys():
            raise ValueError(f"'prior' lies in (0, 1), and 'lambda' has {', '.join(self.point['lam'])}")
        x = {column["input"]: self.cells(column, rows) for column in self.columns}
        x |= {name: np.array(value, np.float32) for name, value in lam.items()} | {"prior": np.array(prior)}
        logits, probabilities = self.session.run(["logit", "probability"], x)
        # The threshold is one on the odds at the point's prior. It moves with the prior, so that the decision stays.
        threshold = self.point["log_odds_threshold"] + log_odds(prior) - log_odds(self.point["prior"])
        return [
            {"probability": float(p), "log_odds": float(z), "prediction": self.classes[int(z >= threshold)]}
            for z, p in zip(logits, probabilities, strict=True)
        ]

    def cells(self, column: dict, rows: list[dict]) -> np.ndarray:
        values = [row.get(column["column"]) for row in rows]
        if column["kind"] == "categorical":
            return np.array(["" if value is None else str(value) for value in values], dtype=object)
        return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def log_odds(share: float) -> float:
    return math.log(share) - math.log1p(-share)


def server(path: str, port: int) -> ThreadingHTTPServer:
    model = Model(path)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = 200, model.answer(request)
            except (ValueError, TypeError, AttributeError) as error:
                status, answer = 400, {"error": str(error)}
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    server(sys.argv[1], int(sys.argv[2])).serve_forever()
