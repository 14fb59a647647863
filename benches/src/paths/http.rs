//! A server over loopback, with and without limits.

use axum::Router;

use crate::http::{Client, Limited, Server, Spent, empty_layer, governed, ours, plain};
use crate::measure::{Effort, Entrant, medians};
use crate::report::{Row, Target};

/// Requests per second of a server's thread, as the time of one.
pub(super) fn rows(effort: Effort) -> Vec<Row> {
    let servers: [(Router, u16); 6] = [
        (plain(), 200),
        (empty_layer(), 200),
        (plain().layer(ours::<Limited>()), 200),
        (plain().layer(governed::<Limited>()), 200),
        (plain().layer(ours::<Spent>()), 429),
        (plain().layer(governed::<Spent>()), 429),
    ];
    let (routers, statuses): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
    let server = Server::new(routers);
    let clients = server.addresses().iter().zip(statuses);
    let mut entrants: Vec<Entrant<'_>> = clients
        .map(|(address, status)| {
            let mut client = Client::new(*address, status);
            Box::new(move |count| client.run(count)) as Entrant<'_>
        })
        .collect();
    // Differences are of a few percent: many short turns.
    let effort = Effort { rounds: effort.rounds * 10, turn: effort.turn / 2 };
    let times = medians(&mut entrants, effort);
    let [none, empty, allowed, governed, denied, governed_denied] = times[..] else {
        unreachable!("as many as there are servers")
    };
    let (path, path_denied) = ("HTTP layer with fields, allowed", "HTTP layer with fields, 429");
    let governor = "tower_governor";
    vec![
        Row::new(path, allowed, "no layer", none, Target::AtLeast(0.98)).with_floor(empty),
        Row::new(path, allowed, governor, governed, Target::AtLeast(1.0)).with_floor(empty),
        Row::new(path_denied, denied, "no layer's 200", none, Target::AtLeast(0.95)),
        Row::new(path_denied, denied, governor, governed_denied, Target::AtLeast(1.0)),
    ]
}
