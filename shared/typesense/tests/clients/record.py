"""The part of record.mjs that is PyPI's client: does the calls at the port of its endpoint, with the inputs from standard input."""

import importlib.metadata
import json
import sys
import urllib.request

import typesense

port, inputs = int(sys.argv[1]), json.load(sys.stdin)


def client(key):
    node = {**inputs["url"], "port": port}
    return typesense.Client({"nodes": [node], "api_key": key, "connection_timeout_seconds": 5, "num_retries": 0})


admin = client(inputs["key"])
scoped = [admin.keys.generate_scoped_search_key(inputs["searchKey"], parameters).decode() for parameters in [inputs["scoped"], *inputs["otherScoped"]]]
collection = admin.collections[inputs["collection"]]
calls = {
    "createCollection": lambda: admin.collections.create(inputs["schema"]),
    "dropCollection": lambda: collection.delete(),
    "putAlias": lambda: admin.aliases.upsert(inputs["alias"], {"collection_name": inputs["collection"]}),
    "deleteAlias": lambda: admin.aliases[inputs["alias"]].delete(),
    "import": lambda: collection.documents.import_(inputs["documents"], {"action": "upsert"}),
    **{f"delete{n}": lambda f=f: collection.documents.delete({"filter_by": f}) for n, f in enumerate(inputs["filters"])},
    "search": lambda: client(scoped[0]).multi_search.perform({"searches": [inputs["search"]]}, {}),
}
for name, perform in calls.items():
    urllib.request.urlopen(f"http://127.0.0.1:{port}/call", name.encode()).close()
    perform()
json.dump({"version": importlib.metadata.version("typesense"), "scopedKeys": scoped}, sys.stdout)
