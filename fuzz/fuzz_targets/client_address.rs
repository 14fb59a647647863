//! Any header of any peer: a stranger's say is never believed.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use tidegate::TrustedProxies;

fuzz_target!(|input: (IpAddr, Vec<Vec<u8>>)| {
    let (peer, lines) = input;
    let lines = || lines.iter().map(Vec::as_slice);
    let nobody = TrustedProxies::default();
    assert_eq!(nobody.client(peer, lines()), peer.to_canonical());

    let networks = ["10.0.0.0/8", "fc00::/7"].map(|network| network.parse().expect("a network"));
    let proxies = TrustedProxies::new(networks);
    let client = proxies.client(peer, lines());
    assert_eq!(client, client.to_canonical());
    if !proxies.trusts(peer) {
        assert_eq!(client, peer.to_canonical());
    }
    // What stands to the left of a stranger changes nothing.
    if proxies.trusts(peer) && !proxies.trusts(client) {
        let more = [&b"1.1.1.1, 2.2.2.2"[..]].into_iter().chain(lines());
        assert_eq!(proxies.client(peer, more.collect::<Vec<_>>()), client);
    }
});
