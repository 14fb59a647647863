//! What does the HTTP layer add to a call, without sockets and with?

use axum::extract::Request;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate_benches::http::{
    Client, Hello, Limited, Server, Spent, answered, empty_layer, governed, ours, plain,
};
use tower_layer::Layer;
use tower_service::Service;

fn call<S: Service<Request>>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut service: S) {
    // What a limit of one has is spent here.
    drop(answered(&mut service));
    group.bench_function(name, |bench| bench.iter(|| answered(black_box(&mut service))));
}

fn without_sockets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("HTTP call");
    call(&mut group, "no layer", Hello);
    call(&mut group, "ours, allowed", ours::<Limited>().layer(Hello));
    call(&mut group, "ours, denied", ours::<Spent>().layer(Hello));
    call(&mut group, "tower_governor, allowed", governed::<Limited>().layer(Hello));
    call(&mut group, "tower_governor, denied", governed::<Spent>().layer(Hello));
}

fn over_loopback(criterion: &mut Criterion) {
    const REQUESTS: u64 = 256;
    let services = [
        ("no layer", plain(), 200),
        ("empty layer", empty_layer(), 200),
        ("ours, allowed", plain().layer(ours::<Limited>()), 200),
        ("ours, denied", plain().layer(ours::<Spent>()), 429),
        ("tower_governor, allowed", plain().layer(governed::<Limited>()), 200),
        ("tower_governor, denied", plain().layer(governed::<Spent>()), 429),
    ];
    let server = Server::new(services.iter().map(|(_, router, _)| router.clone()).collect());
    let mut group = criterion.benchmark_group("HTTP server");
    group.throughput(Throughput::Elements(REQUESTS));
    for ((name, _, status), address) in services.iter().zip(server.addresses()) {
        let mut client = Client::new(*address, *status);
        group.bench_function(*name, |bench| bench.iter(|| client.run(REQUESTS)));
    }
}

criterion_group!(benches, without_sockets, over_loopback);
criterion_main!(benches);
