//! The official clients of the LLM providers, against the gateway in front of a provider of the tests.

use crate::environment::Environment;
use crate::run::{Failure, run};

const ENVIRONMENT: Environment = Environment {
    tests: "crates/gateway/tests/clients",
    place: "target/clients",
    requirements: "crates/gateway/tests/clients/requirements.txt",
};

/// Runs the tests of `openai`, `anthropic` and `google-genai`.
pub(crate) fn test() -> Result<(), Failure> {
    ENVIRONMENT.make()?;
    // As `tests` has built them.
    run("cargo build --workspace --all-features --bin tidegate --example provider")?;
    run(
        "target/clients/venv/bin/python -B -m pytest -q -p no:cacheprovider crates/gateway/tests/clients",
    )
}
