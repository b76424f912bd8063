"""scripts/prove retrieval: nDCG@10 of the search by meaning, by words, and of both fused, on a public set with judgements (BEIR's form: corpus.jsonl, queries.jsonl, qrels/test.tsv).

The corpus is put into workspaces by the product's API, one document each, and split and embedded by its jobs; each leg is asked for as the function asks (memory_search, through the
pooler), the fused order is the answer of POST /workspaces/{id}/documents/search. docs/retrieval.md says where the set comes from and what was measured.
"""

import argparse
import json
import math
import pathlib
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import stack


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judgements(folder):
    found = {}
    with open(folder / "qrels" / "test.tsv", encoding="utf-8") as file:
        next(file)
        for line in file:
            query, document, score = line.split("\t")
            if int(score) > 0:
                found.setdefault(query, {})[document] = int(score)
    return found


def ndcg(order, judged, at=10):
    """Jaervelin, Kekaelaeinen 2002, gains as judged."""
    gain = sum(judged.get(document, 0) / math.log2(place + 2) for place, document in enumerate(order[:at]))
    best = sum(score / math.log2(place + 2) for place, score in enumerate(sorted(judged.values(), reverse=True)[:at]))
    return gain / best


# Of the vectors' leg beside the words'.
WEIGHTS = [1, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005]


def weighted(vector, keyword, weight):
    """Both legs as shared/memory/src/fuse.rs puts them together, where the vectors' weighs so much."""
    share = lambda leg: {chunk: 61 / (60 + place) for place, chunk in enumerate(leg, 1)}
    near, said = share(vector), share(keyword)
    score = lambda chunk: (said[chunk] + weight * near.get(chunk, 0)) / (1 + weight) if chunk in said else near[chunk] / 2
    return sorted(near.keys() | said.keys(), key=lambda chunk: (-score(chunk), chunk))


def documents(ids, slug_of):
    """Documents in the order of their best chunks."""
    return list(dict.fromkeys(slug_of[chunk] for chunk in ids if chunk in slug_of))


def put(name, corpus):
    member = stack.token("member", name)

    def one(entry):
        text = f"# {entry['title']}\n\n{entry['text']}\n" if entry["title"] else entry["text"]
        stack.api("PUT", f"/workspaces/{name}/documents/{entry['_id'].lower()}", text.encode(), member, "text/markdown")
        # No more at once than a sentence model on this machine answers in time.
        while stack.api("GET", f"/workspaces/{name}/memory/status", None, member)["jobs"]["waiting"] > 16:
            time.sleep(0.2)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, corpus))
    while True:
        status = stack.api("GET", f"/workspaces/{name}/memory/status", None, member)
        if not status["pendingDocuments"] and not status["jobs"]["waiting"]:
            break
        time.sleep(1)
    if status["jobs"]["dead"]:
        raise SystemExit(f"{status['jobs']['dead']} jobs are dead")
    return status


def vectors(name, queries):
    """What the workspace's embedder makes of the queries: each is written as a memory, whose vector the administrator reads."""
    member, found = stack.token("member", name), {}
    with stack.admin() as db:
        for query in queries:
            memory = stack.api("POST", f"/workspaces/{name}/memories", {"kind": "note", "content": query["text"]}, member)
            found[query["_id"]] = db.execute(f'SELECT embedding::text FROM "mem_{name}".memories WHERE id = %s', (memory["id"],)).fetchone()[0]
    return found


def measure(name, queries, judged):
    legs = {"by meaning": [], "by words": [], "both": []} | {weight: [] for weight in WEIGHTS}
    member, vector = stack.token("member", name), vectors(name, queries)
    with stack.admin() as db:
        row = db.execute("SELECT generation FROM memory_settings WHERE workspace_id = %s AND embedder IS NOT NULL", (name,)).fetchone()
    with stack.pooled() as connection:
        for query in queries:
            text = query["text"]
            _, answer = stack.search(connection, name, vector[query["_id"]], text, generation=row and row[0])
            slug_of = {entry["id"]: entry["slug"] for entry in answer["found"]}
            both = stack.api("POST", f"/workspaces/{name}/documents/search", {"query": text, "limit": 50}, member)["data"]
            of = judged[query["_id"]]
            legs["by meaning"].append(ndcg(documents(answer["vector"], slug_of), of))
            legs["by words"].append(ndcg(documents(answer["keyword"], slug_of), of))
            for weight in WEIGHTS:
                legs[weight].append(ndcg(documents(weighted(answer["vector"], answer["keyword"], weight), slug_of), of))
            legs["both"].append(ndcg(list(dict.fromkeys(hit["citation"]["slug"] for hit in both)), of))
    return {leg: sum(values) / len(values) for leg, values in legs.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=pathlib.Path, help="a folder in BEIR's form")
    parser.add_argument("--embedder", help="the base URL of the sentence model, as minilm.py serves it")
    options = parser.parse_args()
    corpus, judged = lines(options.data / "corpus.jsonl"), judgements(options.data)
    queries = [query for query in lines(options.data / "queries.jsonl") if query["_id"] in judged]
    stack.plan()
    print(f"{len(corpus):,} documents, {len(queries)} queries\n\n| embedder | by meaning | by words | both |\n|---|---|---|---|", flush=True)
    lost, of_weights = [], []
    for embedder in ["local", "all-MiniLM-L6-v2"][:2 if options.embedder else 1]:
        name = f"retrieval-{uuid.uuid4().hex[:8]}"
        stack.workspace(name)
        if embedder != "local":
            stack.api("PUT", f"/workspaces/{name}/secrets/OPENAI_API_KEY", {"value": "none"})
            stack.api("PUT", "/billing/prices", {"provider": "openai", "model": embedder, "inputUsdPerMtok": 0.01, "cachedInputUsdPerMtok": 0.01, "outputUsdPerMtok": 0.0})
            stack.api("PUT", f"/workspaces/{name}/memory/settings", {"embedder": {"provider": "openai", "model": embedder, "dimensions": 384, "endpoint": options.embedder}})
        put(name, corpus)
        found = measure(name, queries, judged)
        print(f"| {embedder} | {found['by meaning']:.4f} | {found['by words']:.4f} | {found['both']:.4f} |", flush=True)
        of_weights.append(f"{embedder}: " + ", ".join(f"{found[weight]:.4f} of {weight}" for weight in WEIGHTS))
        if found["both"] < max(found["by meaning"], found["by words"]):
            lost.append(embedder)
    print("\nboth, by the weight of the one by meaning:", *of_weights, sep="\n")
    if lost:
        raise SystemExit(f"both together are worse than one alone: {', '.join(lost)}")


main()
