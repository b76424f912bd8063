"""Makes the workspace that schemathesis.sh fuzzes, and prints its callers' tokens as shell variables. Only the standard library is used."""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.request
import uuid

URL = os.environ["ASTRA_URL"].rstrip("/")
KID, SECRET = os.environ["ASTRA_TOKEN_KEYS"].split(",")[0].split(":", 1)
SECRET = base64.urlsafe_b64decode(SECRET + "=" * (-len(SECRET) % 4))


def part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(role: str, workspace: str | None = None) -> str:
    now = int(time.time())
    claims = {"sub": f"{role}@fuzz", "role": role, "jti": str(uuid.uuid4()), "iat": now, "exp": now + 3600, "iss": "astra-edge", "aud": "astra-edge"}
    if workspace:
        claims["ws"] = workspace
    signed = part(json.dumps({"alg": "HS256", "kid": KID}).encode()) + "." + part(json.dumps(claims).encode())
    return signed + "." + part(hmac.new(SECRET, signed.encode(), hashlib.sha256).digest())


def call(method: str, path: str, bearer: str, body: bytes, content_type: str = "application/json") -> dict:
    headers = {"authorization": f"Bearer {bearer}", "content-type": content_type}
    request = urllib.request.Request(URL + path, data=body, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"{}")


def main() -> None:
    workspace, plan = f"fuzz-{uuid.uuid4().hex[:12]}", f"fuzz-{uuid.uuid4().hex[:12]}"
    operator, admin = token("operator"), token("admin", workspace)
    agent = {"displayName": "Fuzzed", "model": {"provider": "local", "modelId": "echo-1"}, "systemPromptTemplate": "For {{workspace.displayName}}."}
    template = json.dumps({"agents": [{"id": "assistant", **agent}]}).encode()
    call("POST", "/workspaces", operator, json.dumps({"id": workspace, "displayName": "Fuzz", "plan": plan, "ownerId": "o"}).encode())
    for role in ("admin", "viewer"):
        call("PUT", f"/workspaces/{workspace}/members/{role}@fuzz", operator, json.dumps({"role": role}).encode())
    call("PUT", f"/plans/{plan}/template", operator, template, "application/yaml")
    call("PUT", f"/workspaces/{workspace}/secrets/FUZZ_KEY", admin, b'{"value": "x"}')
    turn = call("POST", f"/workspaces/{workspace}/turns", admin, b'{"agentId": "assistant", "message": "hello"}')
    with open("workspace.toml", "w", encoding="utf-8") as config:
        # Path parameters by name: with what exists, half of the answers would be 404.
        for name, value in {"workspaceId": workspace, "sessionId": turn["sessionId"], "turnId": turn["turnId"], "secretName": "FUZZ_KEY"}.items():
            config.write(f'{"[parameters]" + chr(10) if name == "workspaceId" else ""}"path.{name}" = "{value}"\n')
    print(f"OPERATOR={operator}\nADMIN={admin}\nVIEWER={token('viewer', workspace)}")


main()
