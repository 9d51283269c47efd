"""An exported model of a table behind HTTP, with Python's own server and onnxruntime; without tunelater or PyTorch.

    tunelater export run model.onnx --at point.json
    python examples/serve_onnx.py model.onnx 8000
    curl localhost:8000 -d '{"rows": [{"TSH": 12.5, "sex": "F"}], "prior": 0.02}'

Cells that a row leaves out are missing. Lambda, prior and threshold are the operating point's, unless a request has its
own (`"lambda": {"gamma": 0.1}`, `"threshold": 0.3`): a need that has changed is another request, not another model.
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
        self.columns, self.classes = json.loads(told["tunelater.inputs"]), json.loads(told["tunelater.classes"])
        self.range = {name: (of["low"], of["high"]) for name, of in json.loads(told["tunelater.lambda"]).items()}
        self.point = json.loads(told["tunelater.points"])[0]  # export with --at point.json

    def answer(self, asked: dict) -> list[dict]:
        """Probability, log-odds and prediction of each row. Raises ValueError for a request that is none."""
        rows, lam, prior = asked.get("rows"), asked.get("lambda", {}), asked.get("prior", self.point["prior"])
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise ValueError("'rows' is a list of objects, one for each sample")
        names = {"rows", "lambda", "prior", "threshold", *self.range, *(column["column"] for column in self.columns)}
        if unknown := {*asked, *lam, *(name for row in rows for name in row)} - names:
            raise ValueError(f"there is no {', '.join(sorted(unknown))} among {', '.join(sorted(names))}")
        if not all(self.range[name][0] <= value <= self.range[name][1] for name, value in lam.items()):
            raise ValueError(f"'lambda' lies where training drew it, {self.range}; got {lam}")
        # The point's threshold moves with the prior, so that decisions stay; one that is given is at the prior given.
        moved = self.point["log_odds_threshold"] + log_odds("prior", prior) - log_odds("prior", self.point["prior"])
        threshold = log_odds("threshold", asked["threshold"]) if "threshold" in asked else moved
        x = {column["input"]: self.cells(column, rows) for column in self.columns} | {"prior": np.array(float(prior))}
        x |= {name: np.array(value, np.float32) for name, value in (self.point["lam"] | lam).items()}
        logits, probabilities = self.session.run(["logit", "probability"], x)
        made = zip(logits.tolist(), probabilities.tolist(), strict=True)
        return [{"probability": p, "log_odds": z, "prediction": self.classes[z >= threshold]} for z, p in made]

    def cells(self, column: dict, rows: list[dict]) -> np.ndarray:
        values = [row.get(column["column"]) for row in rows]
        if column["kind"] == "categorical":
            return np.array(["" if value is None else str(value) for value in values], dtype=object)
        return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def log_odds(name: str, share: float) -> float:
    if not 0 < share < 1:
        raise ValueError(f"{name!r} lies in (0, 1), got {share}")
    return math.log(share) - math.log1p(-share)


def server(path: str, port: int) -> ThreadingHTTPServer:
    model = Model(path)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = 200, json.dumps(model.answer(request), allow_nan=False)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                status, answer = 400, json.dumps({"error": str(error)})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(answer.encode())

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    server(sys.argv[1], int(sys.argv[2])).serve_forever()
