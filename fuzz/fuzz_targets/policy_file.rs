//! Any text as a policy file: refused with a place in it, or a policy that answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::policy::{Call, Policy};

fuzz_target!(|text: &str| {
    match Policy::from_toml(text) {
        Err(error) => {
            assert!(error.line() >= 1 && error.line() <= text.matches('\n').count() + 1);
            assert!(error.to_string().starts_with("policy:"));
        }
        Ok(policy) => {
            let ip = [192, 0, 2, 1].into();
            let call = Call::new("POST", "/v1/chat").from_ip(ip).by_user("u").with_llm_tokens(1);
            let _ = policy.decide(&call);
            let _ = policy.peek(&call);
        }
    }
});
