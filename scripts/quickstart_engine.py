"""What a server does: embed sentences with an artifact, importing its loader and nothing else.

python quickstart_engine.py FOLDER < sentences.json     # {"vectors": …, "ms": …} on stdout
"""

from __future__ import annotations

import json
import statistics
import sys
import time

TIMES = 20


def main() -> None:
    """Embed the sentences on standard input; the loader comes from the artifact."""
    folder, sentences = sys.argv[1], json.load(sys.stdin)
    sys.path.insert(0, folder)
    import loader

    model = loader.load(folder)
    vectors = model.embed(sentences)
    times = []
    for _ in range(TIMES):
        begin = time.perf_counter()
        model.embed(sentences)
        times.append(time.perf_counter() - begin)
    ours = [name for name in sys.modules if name.split(".")[0] in {"torch", "lepton_compile"}]
    assert not ours, f"the loader brought in {ours}"
    json.dump({"vectors": vectors.tolist(), "ms": 1000 * statistics.median(times)}, sys.stdout)


if __name__ == "__main__":
    main()
