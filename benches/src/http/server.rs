//! [`Server`]: routers on one thread, each at a port of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Routers on one thread, each at a port of its own, until dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves the routers. All of them are told where a connection comes from.
    ///
    /// # Panics
    /// When there is no port.
    #[must_use]
    pub fn new(routers: Vec<Router>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let runtime = runtime.expect("a runtime");
        let listen = || runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listeners: Vec<_> = routers.iter().map(|_| listen().expect("a port")).collect();
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let addresses = listeners.iter().map(address).collect();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _guard = runtime.enter();
            for (listener, router) in listeners.into_iter().zip(routers) {
                let router = router.into_make_service_with_connect_info::<SocketAddr>();
                runtime.spawn(async { axum::serve(listener, router).await });
            }
            let _ = runtime.block_on(stopped);
        });
        Self { addresses, stop: Some(stop), thread: Some(thread) }
    }

    /// Where the routers are, in their order.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        // If it panicked, the clients have noticed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
