//! A server over loopback, with and without limits.

use axum::Router;

use crate::http::{
    Client, Limited, Server, Spent, empty_layer, governed, ours, plain, same_fields,
};
use crate::measure::{Effort, Entrant, median, medians};
use crate::report::{Row, Target};

/// How many servers are started, one after the other. Where a server's memory happens to lie makes a
/// difference of some percent, which no number of rounds takes away.
const SERVERS: usize = 7;

/// Requests per second of a server's thread, as the time of one.
pub(super) fn rows(effort: Effort) -> Vec<Row> {
    // Differences are of a few percent: many short turns.
    let effort = Effort { rounds: effort.rounds * 3, turn: effort.turn / 2 };
    let times: Vec<_> = (0..SERVERS).map(|_| one_server(effort)).collect();
    let time = |index: usize| median(times.iter().map(|times| times[index]).collect());
    let [none, empty, fields, allowed, governed, denied, governed_denied] =
        std::array::from_fn(time);
    let (path, path_denied) = ("HTTP layer with fields, allowed", "HTTP layer with fields, 429");
    let governor = "tower_governor";
    vec![
        Row::new(path, allowed, "no layer", none, Target::AtLeast(0.98)).with_floor(empty),
        Row::new(path, allowed, "just such fields", fields, Target::AtLeast(0.98)),
        Row::new(path, allowed, governor, governed, Target::AtLeast(1.0)).with_floor(empty),
        Row::new(path_denied, denied, "no layer's 200", none, Target::AtLeast(0.95)),
        Row::new(path_denied, denied, governor, governed_denied, Target::AtLeast(1.0)),
    ]
}

/// The median time of a request to each of the services.
fn one_server(effort: Effort) -> Vec<f64> {
    let services: [(Router, u16); 7] = [
        (plain(), 200),
        (empty_layer(), 200),
        (same_fields(), 200),
        (plain().layer(ours::<Limited>()), 200),
        (plain().layer(governed::<Limited>()), 200),
        (plain().layer(ours::<Spent>()), 429),
        (plain().layer(governed::<Spent>()), 429),
    ];
    let (routers, statuses): (Vec<_>, Vec<_>) = services.into_iter().unzip();
    let server = Server::new(routers);
    let clients = server.addresses().iter().zip(statuses);
    let entrants = clients.map(|(address, status)| {
        let mut client = Client::new(*address, status);
        Box::new(move |count| client.run(count)) as Entrant<'_>
    });
    medians(&mut entrants.collect::<Vec<_>>(), effort)
}
