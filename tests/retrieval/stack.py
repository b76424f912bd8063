"""What speed.py and quality.py share: the stack that scripts/stack env tells of, by its API, by its pooler as a function's role, and as its administrator."""

import base64
import hashlib
import hmac
import json
import os
import time
import urllib.error
import urllib.request

import psycopg

URL = os.environ["ASTRA_URL"].rstrip("/")


def key(name):
    kid, text = os.environ[name].split(",")[0].split(":", 1)
    return kid, base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(role, workspace=None, subject="user_bench"):
    kid, secret = key("ASTRA_TOKEN_KEYS")
    now = int(time.time())
    claims = {"iss": "astra-edge", "aud": "astra-edge", "sub": subject, "role": role, "jti": f"bench-{now}", "iat": now, "exp": now + 86400}
    if workspace:
        claims["ws"] = workspace
    said = b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": kid}).encode()) + "." + b64(json.dumps(claims).encode())
    return said + "." + b64(hmac.digest(secret, said.encode(), "sha256"))


def api(method, path, body=None, bearer=None, media="application/json", allow=()):
    """The answer's JSON; whatever is no success ends the run, but for the statuses of `allow`."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    headers = {"authorization": f"Bearer {bearer or token('operator')}", "content-type": media}
    request = urllib.request.Request(URL + path, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        if error.code in allow:
            return None
        raise SystemExit(f"{method} {path}: {error.code} {error.read()[:500]}") from None


def workspace(name):
    """A workspace whose limits no measurement reaches, with an agent that needs no network."""
    body = {"id": name, "displayName": "Bench", "plan": "retrieval", "ownerId": "user_bench",
            "limits": {"maxAgents": 10, "maxTokensPerMonth": 10**12, "maxCostUsdPerMonth": 1000000.0}}
    api("POST", "/workspaces", body)


def plan():
    text = ('agents:\n  - id: echo\n    displayName: Echo\n    model: { provider: local, modelId: echo-1 }\n'
            '    systemPromptTemplate: You are the AI assistant for {{workspace.displayName}}.\n')
    api("PUT", "/plans/retrieval/template", text.encode(), media="application/yaml")


def admin():
    return psycopg.connect(os.environ["ASTRA_ADMIN_DATABASE_URL"], autocommit=True)


def pooled():
    """As the function `memory` is connected: its role, through the pooler, no prepared statements."""
    url = os.environ["ASTRA_POOLER_URL"].replace("astra_quota", "astra_memory", 1)
    return psycopg.connect(url, autocommit=True, prepare_threshold=None)


def proof(name):
    """As astra_kernel::proof."""
    kid, secret = key("ASTRA_TENANT_KEYS")
    said = f"{name} {int(time.time()) + 300} {kid} "
    return f"{hmac.digest(secret, said.encode(), hashlib.sha256).hex()} {said}"


def search(connection, name, vector, query, what="documents", limit=50, subject="user_bench", generation=None):
    """One search as the function asks for it: (seconds, answer). generation: of the workspace's embedder; none: the local one."""
    arg = json.dumps({"subject": subject, "what": [what], "embedding": vector, "generation": generation, "query": query, "limit": limit})
    proved = proof(name)
    began = time.perf_counter()
    row = connection.execute("SELECT astra.memory_search(astra.enter(%s), %s)", (proved, arg)).fetchone()
    return time.perf_counter() - began, json.loads(row[0])


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]
