"""Python reads this at its start. The tool stays as it is; whom it believes is told: the authority of the test."""

import os

import certifi

certifi.where = lambda: os.environ["AUTHORITY"]
