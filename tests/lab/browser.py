"""A person's browser for the portal's pages, over HTTP: forms with their tokens, cookies, redirects."""

import re

import requests

TIMEOUT = 20


class Browser:
    def __init__(self, address: str, host: str) -> None:
        self.address, self.session = address, requests.Session()
        self.session.headers["Host"] = host

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.address + path, timeout=TIMEOUT)

    def submit(self, path: str, **fields: str) -> requests.Response:
        """Open the page at `path`, fill in its form and send it. Follows the redirect, if any."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(path).text)
        if token is None:
            raise AssertionError(f"{path} shows no form")
        return self.post(path, csrfmiddlewaretoken=token[1], **fields)

    def post(self, path: str, **fields: str) -> requests.Response:
        return self.session.post(self.address + path, data=fields, timeout=TIMEOUT)

    def sign_in(self, name: str, password: str) -> requests.Response:
        return self.submit("/login/", username=name, password=password)
