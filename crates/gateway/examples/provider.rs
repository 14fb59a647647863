//! A provider of LLM APIs for tests of clients: says where it listens, and answers until it is killed.

#[path = "../tests/gateway/provider/mod.rs"]
mod provider;

#[tokio::main]
async fn main() {
    let provider = provider::Provider::start().await;
    println!("http://{}", provider.address);
    std::future::pending::<()>().await;
}
