"""Data: tables, and the splits that training and scoring read."""
