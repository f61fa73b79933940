"""What schemathesis has to be told about this API: how to sign in, and how bodies look that are no JSON."""

import os
import zipfile
from io import BytesIO

import requests
import schemathesis

# Shorter than a token is good.
SIGNED_IN_SECONDS = 300


@schemathesis.auth(refresh_interval=SIGNED_IN_SECONDS)
class ServiceAccount:
    """Signs in with the client of admin.json (RFC 6749, section 4.4), again and again in a long run."""

    def get(self, case, context):
        answer = requests.post(
            os.environ["MUSTER_URL"] + "/oauth2/token",
            data={
                "grant_type": "client_credentials",
                "client_id": os.environ["MUSTER_CLIENT_ID"],
                "client_secret": os.environ["MUSTER_CLIENT_SECRET"],
            },
            verify=os.environ["MUSTER_CA_FILE"],
            timeout=30,
        )
        return answer.json()["access_token"]

    def set(self, case, data, context):
        # Calls without a permit take no token: some of them would be asked by two clients at once.
        if not case.path.startswith("/oauth2/"):
            case.headers = case.headers or {}
            case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.serializer("application/zip")
def archive(context, value):
    """Bytes as they are, or an archive with whatever was made up."""
    if isinstance(value, bytes):
        return value
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("policy.json", str(value))
    return made.getvalue()


@schemathesis.serializer("image/png")
def picture(context, value):
    """Bytes as they are, or whatever was made up behind the signature of a PNG."""
    if isinstance(value, bytes):
        return value
    return b"\x89PNG\r\n\x1a\n" + str(value).encode()


def as_it_is(context, response):
    return response.content.decode("latin-1")


for kind in ("application/zip", "application/gzip", "application/octet-stream", "text/csv", "text/plain"):
    schemathesis.deserializer(kind)(as_it_is)
