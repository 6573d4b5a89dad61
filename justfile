# Short names for what one does here every day; `just` alone lists them.
# Needs https://just.systems; CI and scripts/test do not.

revision := `git rev-parse --short=12 HEAD 2>/dev/null || echo unknown`

# List the recipes.
[private]
default:
    @just --list --unsorted

# Build for development.
build:
    cargo build --locked

# Run the server on its built-in Postgres; arguments go to the program: just run --help
run *arguments:
    cargo run --locked -- {{ arguments }}

# Run the tests, or those whose name contains FILTER.
test *filter:
    cargo test --locked -- {{ filter }}

# Run the tests on an installed PostgreSQL: just test-pg /usr/lib/postgresql/15/bin
test-pg bin *filter:
    M3W_TEST_PG_BIN={{ quote(bin) }} cargo test --locked -- {{ filter }}

# Format everything.
fmt:
    cargo fmt

# What a reviewer would say first: format and lints, warnings are errors.
lint:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings

# Check licences, bans and sources of all dependencies.
deny:
    PATH="target/tools/bin:$PATH" cargo deny --locked check --hide-inclusion-graph bans licenses sources

# Check the dependencies for known vulnerabilities; fetches the RustSec database.
audit:
    PATH="target/tools/bin:$PATH" cargo deny --locked check --hide-inclusion-graph advisories

# Build the documentation of everything, private items too, and open it.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --locked --document-private-items --open

# Write the tables in docs/, grafana/, docs/openapi.json and the help snapshots anew; then read the diff.
refresh:
    M3W_UPDATE_DOCS=1 cargo test --quiet --locked --test it -- docs:: grafana::
    cargo run --quiet --locked -- openapi > docs/openapi.json
    INSTA_UPDATE=always cargo test --quiet --locked --test it -- cli::

# Write the OpenAPI description that the server answers at /openapi.json to FILE.
openapi file="target/openapi.json":
    cargo run --quiet --locked -- openapi > {{ quote(file) }}
    @echo {{ quote(file) }}

# Measure the dashboards' queries on a filled database: just bench-dashboards postgresql://…
bench-dashboards url:
    M3W_BENCH_URL={{ quote(url) }} cargo bench --locked --bench dashboards

# Run the tests and look at every snapshot that has changed (needs cargo-insta).
snapshot:
    cargo insta test --review

# Everything that CI checks, in two rounds on two versions of PostgreSQL.
check:
    scripts/test

# The same in one round, for development.
check-fast:
    scripts/test --fast

# Check compose.yaml with whichever compose is installed.
compose-check:
    if docker compose version >/dev/null 2>&1; then docker compose config --quiet; else docker-compose config --quiet; fi

# Build the image.
image version="dev":
    docker build -t media3watch-backend:{{ version }} --build-arg VERSION={{ version }} --build-arg REVISION={{ revision }} .

# Build and start backend and Postgres with compose.
up:
    MEDIA3WATCH_REVISION={{ revision }} docker compose up --build --detach

# Prove that the program runs in an empty read-only root directory (root, Linux, DATABASE_URL).
container-proof:
    scripts/container-proof

# Build the release binary.
release:
    M3W_REVISION={{ revision }} cargo build --release --locked

# Measure the ingest path against what bounds it, for about 10 minutes: just bench --help
bench *arguments:
    M3W_REVISION={{ revision }} cargo bench --locked --bench ingest -- {{ arguments }}

# Micro-benchmarks of what happens between a body and the queue; a filter may follow.
bench-micro *arguments:
    cargo bench --locked --bench micro -- {{ arguments }}
