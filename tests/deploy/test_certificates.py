"""What certs/README.md says of a device's certificate, asked of a gateway."""

import http.client
import ssl

import pytest
from conftest import run


def certificate(pki, name, extensions):
    """A device's certificate of the gateway's authority, with these extensions."""
    stem = pki / "devices" / name
    stem.with_suffix(".ext").write_text(f"subjectAltName=DNS:{name}\n{extensions}")
    run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", stem.with_suffix(".key"),
        "-subj", "/O=Devices", "-out", stem.with_suffix(".csr"))
    run("openssl", "x509", "-req", "-in", stem.with_suffix(".csr"), "-CA", pki / "ca.pem", "-CAkey", pki / "ca.key", "-days", "1",
        "-extfile", stem.with_suffix(".ext"), "-out", stem.with_suffix(".pem"))


def post(gateway, device):
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=gateway.tls(device))
    connection.request("POST", "/v1/telemetry", "1")
    return connection.getresponse().status


@pytest.mark.parametrize("name, extensions", [
    ("without-usage", ""), ("with-usage", "extendedKeyUsage=clientAuth\n"), ("with-both", "extendedKeyUsage=serverAuth,clientAuth\n")])
def test_a_certificate_may_leave_its_extended_usage_out(gateway, name, extensions):
    certificate(gateway.folder / "pki", name, extensions)
    assert post(gateway, name) == 204


def test_a_certificate_with_other_usages_only_is_refused(gateway):
    certificate(gateway.folder / "pki", "with-another-usage", "extendedKeyUsage=serverAuth\n")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        post(gateway, "with-another-usage")
