"""Prints tokens for Amazon MSK as Amazon's own signer makes them, of fixed credentials at a fixed time: the values that
src/sink/kafka/login/msk.rs is tested against.

    python -m venv msk && msk/bin/pip install aws-msk-iam-sasl-signer-python==1.0.2 && msk/bin/python tests/clients/msk_token.py
"""

import datetime
from unittest import mock

import botocore.auth
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
from botocore.credentials import CredentialProvider, Credentials

NOW = datetime.datetime(2026, 11, 30, 12, 34, 56)
CASES = [
    ("us-east-1", Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
    ("eu-central-1", Credentials("ASIAEXAMPLE", "c2VjcmV0/LWtleSs=", "IQoJb3JpZ2luX2VjEXAMPLE//////////wEaCXVz+token==")),
]


class Fixed(CredentialProvider):
    def __init__(self, credentials):
        super().__init__()
        self.credentials = credentials

    def load(self):
        return self.credentials


with mock.patch.object(botocore.auth, "get_current_datetime", lambda *_: NOW):
    for region, credentials in CASES:
        print(MSKAuthTokenProvider.generate_auth_token_from_credentials_provider(region, Fixed(credentials)))
