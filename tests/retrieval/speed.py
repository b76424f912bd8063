"""scripts/bench memory: searches through the pooler at several sizes, recall against exact search, uploads, and turns with and without memory. docs/retrieval.md says what is measured.

Vectors are made: points around centres, one centre for a hundred of them, spread in 48 directions of the 384 that all share and by as much again in all of them, so that the nearest of
a point are its cluster's and no cluster stands alone. Texts are made: a hundred words of 20,000, how often by Zipf's law. Queries are new points and words of the same kind.
"""

import argparse
import time
import uuid

import numpy as np

import stack

DIMENSIONS = 384
WORDS = 20_000
DEFINITION = "USING hnsw (embedding public.vector_cosine_ops)"


class Made:
    def __init__(self, seed, count):
        self.random = np.random.default_rng(seed)
        self.centres = self.random.standard_normal((max(1, count // 100), DIMENSIONS)).astype(np.float32)
        self.centres /= np.linalg.norm(self.centres, axis=1, keepdims=True)
        self.directions = self.random.standard_normal((48, DIMENSIONS)).astype(np.float32) / np.sqrt(DIMENSIONS)
        weights = 1 / np.arange(1, WORDS + 1)
        self.often = np.cumsum(weights / weights.sum())

    def vectors(self, count):
        near = self.centres[self.random.integers(len(self.centres), size=count)]
        along = self.random.standard_normal((count, 48)).astype(np.float32) @ self.directions / np.sqrt(48)
        around = self.random.standard_normal((count, DIMENSIONS)).astype(np.float32) / np.sqrt(DIMENSIONS)
        found = near + 0.6 * along + 0.6 * around
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def text(self, words):
        return " ".join(f"w{place}" for place in np.searchsorted(self.often, self.random.random(words)))


def written(vector):
    return "[" + ",".join(f"{number:.6g}" for number in vector) + "]"


def fill(db, name, made, count, index, batch=5000):
    """A document of so many chunks, past the API: what is measured here is the search. The index is made as the product makes it."""
    schema = f'"mem_{name}"'
    document = uuid.uuid4()
    db.execute(f"INSERT INTO {schema}.documents (id, slug, version, title, media_type, tags, hash, bytes, status, chunks, total, is_current, created_by, created_at, ready_at) "
               "VALUES (%s, 'bench', 1, 'Bench', 'text/plain', '{}', '', 1, 'ready', %s, %s, true, 'bench', now(), now())", (document, count, count))
    position = 0
    while position < count:
        vectors = made.vectors(min(batch, count - position))
        with db.cursor().copy(f"COPY {schema}.chunks (id, document_id, position, heading, content, embedding) FROM STDIN") as copy:
            for vector in vectors:
                copy.write_row((uuid.uuid4(), document, position, "", made.text(100), written(vector)))
                position += 1
    db.execute("UPDATE quotas SET has_memories = true WHERE workspace_id = %s", (name,))
    began = time.perf_counter()
    if index:
        db.execute("SET maintenance_work_mem = '2GB'")
        db.execute(f"CREATE INDEX IF NOT EXISTS chunks_embedding ON {schema}.chunks {DEFINITION}")
    took = time.perf_counter() - began
    db.execute(f"ANALYZE {schema}.chunks")
    return took


def exact(db, name, vector, limit=10):
    with db.transaction():
        db.execute("SET LOCAL enable_indexscan = off")
        rows = db.execute(f'SELECT id::text FROM "mem_{name}".chunks ORDER BY embedding OPERATOR(public.<=>) %s::public.vector LIMIT {limit}', (vector,))
        return [row[0] for row in rows.fetchall()]


def timed(connection, names, made, times, legs):
    """(milliseconds, vectors, answers) of so many searches, of the workspaces in turn."""
    took, asked, answers = [], [], []
    for number in range(times):
        vector = written(made.vectors(1)[0]) if legs != "words" else None
        seconds, answer = stack.search(connection, names[number % len(names)], vector, made.text(6) if legs != "vectors" else "")
        took.append(seconds * 1000)
        asked.append(vector)
        answers.append(answer)
    return took, asked, answers


def line(label, took, recall=""):
    print(f"| {label} | {stack.percentile(took, 0.5):.2f} | {stack.percentile(took, 0.99):.2f} | {recall} |", flush=True)


def one_size(count, options):
    name, made = f"bench-{count}-{uuid.uuid4().hex[:8]}", Made(count, count)
    stack.workspace(name)
    with stack.admin() as db, stack.pooled() as connection:
        fill(db, name, made, count, False)
        if count <= 10_000:
            timed(connection, [name], made, 20, "vectors")
            line(f"{count:,}: by meaning, all compared", timed(connection, [name], made, options.searches, "vectors")[0], "1 (exact)")
        began = time.perf_counter()
        db.execute("SET maintenance_work_mem = '4GB'")
        db.execute(f'CREATE INDEX IF NOT EXISTS chunks_embedding ON "mem_{name}".chunks {DEFINITION}')
        print(f"\n{name}: the index was made in {time.perf_counter() - began:.0f} s\n", flush=True)
    with_index(name, count, options)


def others(seed, count):
    """Points and texts of the same kind that are not those that were put there."""
    made = Made(seed, count)
    made.random = np.random.default_rng(seed + 1)
    return made


def with_index(name, count, options):
    made = others(count, count)
    with stack.admin() as db, stack.pooled() as connection:
        timed(connection, [name], made, 50, "both")
        took, asked, answers = timed(connection, [name], made, options.searches, "vectors")
        sample = range(0, len(asked), max(1, len(asked) // options.recall))
        hits = [len(set(exact(db, name, asked[at])) & set(answers[at]["vector"][:10])) / 10 for at in sample]
        line(f"{count:,}: by meaning, index", took, f"{sum(hits) / len(hits):.3f}")
        line(f"{count:,}: by words", timed(connection, [name], made, options.searches, "words")[0])
        line(f"{count:,}: both", timed(connection, [name], made, options.searches, "both")[0])
        if not options.keep and not options.kept:
            db.execute(f'DROP SCHEMA "mem_{name}" CASCADE')


def many(workspaces, each, options):
    run, made = uuid.uuid4().hex[:8], Made(7, each)
    names = [f"bench-{run}-{number}" for number in range(workspaces)]
    print(f"\nbench-{run}: {workspaces:,} workspaces\n", flush=True)
    with stack.admin() as db, stack.pooled() as connection:
        for number, name in enumerate(names):
            stack.workspace(name)
            fill(db, name, made, each, False)
            if number + 1 in (1, 10, 100, 1000) or number + 1 == workspaces:
                timed(connection, names[:number + 1], made, 50, "both")
                line(f"{number + 1:,} workspaces of {each:,}: both", timed(connection, names[:number + 1], made, options.searches, "both")[0])
        for name in names if not options.keep else []:
            db.execute(f'DROP SCHEMA "mem_{name}" CASCADE')


def kept(of, options):
    """Searches once more what an earlier run has left: NAME/SIZE of one workspace, NAME of workspaces."""
    name, _, size = of.partition("/")
    if size:
        return with_index(name, int(size), options)
    with stack.admin() as db, stack.pooled() as connection:
        names = [row[0] for row in db.execute("SELECT id FROM workspaces WHERE id LIKE %s ORDER BY length(id), id", (name + "-%",)).fetchall()]
        for number in sorted({1, 10, 100, 1000, len(names)} & set(range(len(names) + 1))):
            made = others(7, options.each)
            timed(connection, names[:number], made, 50, "both")
            line(f"{number:,} workspaces of {options.each:,}: both", timed(connection, names[:number], made, options.searches, "both")[0])


def upload(megabytes):
    """A document by the API, until all of it is searched."""
    name, made = f"bench-upload-{uuid.uuid4().hex[:8]}", Made(3, 100)
    stack.workspace(name)
    member = stack.token("member", name)
    lines = []
    while sum(map(len, lines[-1:])) >= 0 and len("".join(lines)) < megabytes * 2**20:
        lines = ["".join(lines) + "".join(f"## Part {len(lines)}-{number}\n\n" + "\n\n".join(made.text(120) for _ in range(6)) + "\n\n" for number in range(50))]
    text = "".join(lines)[:megabytes * 2**20].encode()
    began = time.perf_counter()
    stack.api("PUT", f"/workspaces/{name}/documents/large", text, member, "text/markdown")
    kept = time.perf_counter() - began
    while True:
        document = stack.api("GET", f"/workspaces/{name}/documents/large", None, member)["data"][0]
        if document["status"] != "pending":
            break
        time.sleep(0.1)
    took = time.perf_counter() - began
    print(f"\nA Markdown document of {len(text) / 2**20:.1f} MiB: answered after {kept:.2f} s, {document['status']} with {document['chunks']} chunks after {took:.2f} s "
          f"({len(text) / 2**20 / took:.2f} MiB/s, {document['chunks'] / took:.0f} chunks/s)", flush=True)


def turns(times):
    """What memory adds to a turn: the same turns, of a model without a network, of a workspace with nothing to read and of one with 2,000 chunks."""
    made, medians = Made(5, 2000), {}
    names = {"off": f"bench-off-{uuid.uuid4().hex[:8]}", "on": f"bench-on-{uuid.uuid4().hex[:8]}"}
    with stack.admin() as db:
        for name in names.values():
            stack.workspace(name)
        fill(db, names["on"], made, 2000, True)
    took = {"off": [], "on": []}
    for number in range(times + 20):
        for which, name in names.items():
            body = {"agentId": "echo", "message": made.text(8)}
            began = time.perf_counter()
            stack.api("POST", f"/workspaces/{name}/turns", body, stack.token("member", name))
            if number >= 20:
                took[which].append((time.perf_counter() - began) * 1000)
    for which, values in took.items():
        medians[which] = stack.percentile(values, 0.5)
    print(f"\nA turn of the local model, p50 of {times}: {medians['off']:.2f} ms with no memory, {medians['on']:.2f} ms with 2,000 chunks: {medians['on'] - medians['off']:+.2f} ms", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", default="10000,100000", help="vectors in one workspace, commas between them")
    parser.add_argument("--workspaces", type=int, default=100, help="as many workspaces of --each vectors")
    parser.add_argument("--each", type=int, default=1000)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--recall", type=int, default=100, help="how many of the searches are compared with exact ones")
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--upload", type=int, default=5, help="MiB")
    parser.add_argument("--keep", action="store_true", help="leave it, for --kept on the same stack")
    parser.add_argument("--kept", nargs="*", help="search only what was left: a name, of one workspace /SIZE behind it")
    options = parser.parse_args()
    stack.plan()
    print("| search | p50 ms | p99 ms | recall@10 |\n|---|---|---|---|", flush=True)
    if options.kept:
        for of in options.kept:
            kept(of, options)
        return
    for size in filter(None, options.sizes.split(",")):
        one_size(int(size), options)
    if options.workspaces:
        many(options.workspaces, options.each, options)
    if options.upload:
        upload(options.upload)
    if options.turns:
        turns(options.turns)


main()
