"""Preparations before psycopg's wheel is loaded."""

from __future__ import annotations

import os
import ssl

import pytest
from pmpp.plpython import libpq


def test_authorities_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSL is pointed to the certificates that the system trusts."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    libpq._name_authorities()
    found = ssl.create_default_context()
    found.load_verify_locations(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    assert os.environ.get("SSL_CERT_FILE") or os.listdir(os.environ["SSL_CERT_DIR"])


def test_authorities_of_the_administrator(monkeypatch: pytest.MonkeyPatch) -> None:
    """pmpp does not change the certificates that the server's environment names."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/etc/own")
    libpq._name_authorities()
    assert os.environ["SSL_CERT_FILE"] == "/etc/own.pem"
    assert os.environ["SSL_CERT_DIR"] == "/etc/own"
