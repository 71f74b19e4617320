import unittest
from types import SimpleNamespace

from handler import handle


class Handler(unittest.TestCase):
    def test_greets_whoever_is_named(self):
        self.assertEqual(handle(SimpleNamespace(body=b"Ada\n"), None), "Hello, Ada!\n")


if __name__ == "__main__":
    unittest.main()
