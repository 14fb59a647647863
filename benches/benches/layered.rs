//! What does a call cost that three layers of limits decide on, all or nothing?

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate::policy::Call;
use tidegate_benches::keys::Uniform;
use tidegate_benches::paths::three_layers;

const KEYS: u64 = 1_000;

fn layered(criterion: &mut Criterion) {
    let policy = three_layers();
    let users: Vec<String> = (0..KEYS).map(|key| format!("user-{key:011}")).collect();
    let mut keys = Uniform::new(KEYS, 1);
    criterion.bench_function("policy of 3 layers, allowed", |bench| {
        bench.iter(|| {
            let key = keys.key();
            let ip = std::net::Ipv4Addr::from(key as u32).into();
            let call = Call::new("GET", "/chat").from_ip(ip).by_user(&users[key as usize]);
            black_box(&policy).decide(&call).is_allow()
        });
    });
}

criterion_group!(benches, layered);
criterion_main!(benches);
