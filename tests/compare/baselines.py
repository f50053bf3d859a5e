"""TF-IDF + logistic regression on the sections task: what a classical pipeline reaches on the same split.

    python tests/compare/baselines.py [--data cache/sections] [--out results.json]

Needs scikit-learn; for comparison only, Attune itself uses no Python.
"""
import argparse
import json
import os
import time

from common import machine, read_jsonl, scores, versions


def fit(train, evals):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    started = time.time()
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=1),
        LogisticRegression(C=10, max_iter=300),
    )
    model.fit([row["description"] for row in train], [row["section"] for row in train])
    seconds = time.time() - started
    result = {"rows": len(train), "train_seconds": round(seconds, 1)}
    for name, rows in evals.items():
        predicted = model.predict([row["description"] for row in rows])
        result[name] = scores([row["section"] for row in rows], predicted)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="cache/sections")
    parser.add_argument("--out")
    options = parser.parse_args()
    evals = {name: read_jsonl(os.path.join(options.data, name + ".jsonl")) for name in ("eval", "eval-2000")}
    report = {"machine": machine(), "versions": versions("scikit-learn"), "runs": {}}
    for name in ("train-8000", "train"):
        rows = read_jsonl(os.path.join(options.data, name + ".jsonl"))
        report["runs"]["tfidf " + name] = fit(rows, evals)
        print(name, json.dumps(report["runs"]["tfidf " + name]), flush=True)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as out:
            json.dump(report, out, indent=2)


if __name__ == "__main__":
    main()
