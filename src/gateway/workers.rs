//! Starts the workers, each on a thread of its own.

use std::io;
use std::sync::Arc;
use std::thread;

use http::HeaderValue;

use super::alarm::Ending;
use super::authorities;
use super::foundation::Foundation;
use super::reload::Reloaded;
use super::shutdown::Shutdown;
use super::threads::{Running, WorkerThread};
use crate::accept::{Capacity, Trust};
use crate::config::Config;
use crate::events::Events;
use crate::handover::Sender;
use crate::identity::Identity;
use crate::ingest::Routes;
use crate::lifecycle::Token;
use crate::record::Batch;
use crate::tls::Reloader;
use crate::worker::{self, Blueprint, Own, Sockets};

/// Starts a worker for each of these sockets. The last of them to end closes the way to delivery.
pub(crate) fn start(
    blueprint: Blueprint,
    sockets: Vec<Sockets>,
    foundation: &Foundation,
    delivery: Sender<Batch>,
    shutdown: &Shutdown,
) -> anyhow::Result<Vec<WorkerThread>> {
    assert_eq!(sockets.len(), blueprint.listen.workers.get(), "one each");
    let blueprint = Arc::new(blueprint);
    let mut workers = Vec::with_capacity(sockets.len());
    for (index, sockets) in sockets.into_iter().enumerate() {
        let own = Own {
            index,
            sockets,
            observers: foundation.observers.of_worker(index),
            delivery: delivery.clone(),
            listening: shutdown.listener(),
        };
        let ending = shutdown.ending("a worker");
        workers.push(spawn(own, shutdown.socket(), blueprint.clone(), ending)?);
    }
    Ok(workers)
}

fn spawn(
    own: Own,
    place: Token,
    blueprint: Arc<Blueprint>,
    ending: Ending,
) -> io::Result<WorkerThread> {
    let name = format!("forebay-{}", own.index);
    let run = move || {
        let _told_at_the_end = ending;
        worker::run(own, place, &blueprint)
    };
    let thread = thread::Builder::new().name(name).spawn(run)?;
    Ok(Running::Thread(thread))
}

/// Draws the blueprint that every worker is built from; `port` is the one that they listen on.
pub(crate) fn blueprint(
    config: &Config,
    foundation: &Foundation,
    reloaded: &Reloaded,
    port: u16,
) -> anyhow::Result<Blueprint> {
    Ok(Blueprint {
        listen: config.listen.clone(),
        http: config.http.clone(),
        batch: config.batch,
        ack: config.ack,
        streams: u16::try_from(config.streams.len())?,
        alt_svc: config.listen.http3.then(|| alt_svc(port)),
        trust: trust(config, &reloaded.tls),
        gate: foundation.gate.clone(),
        health: foundation.health.clone(),
        capacity: Arc::new(Capacity::new(config.listen.connections)),
        routes: Arc::new(routes(config, &reloaded.tls)),
        rulebook: reloaded.rules.rulebook(),
        events: events(config, foundation),
        phases: foundation.phases.clone(),
    })
}

fn events(config: &Config, foundation: &Foundation) -> Option<Events> {
    let metrics = foundation.observers.metrics.events();
    Some(Events::new(config.events.as_ref()?, metrics))
}

fn trust(config: &Config, reloader: &Reloader) -> Trust {
    let identity =
        Identity::new(config.device_id_sources.clone()).with_expiry_notice(config.expiry_notice);
    Trust {
        tls: reloader.tls(),
        identity: Arc::new(identity),
    }
}

fn routes(config: &Config, reloader: &Reloader) -> Routes {
    let authorities = authorities(reloader.certificate(), &config.http.authorities);
    let routes = Routes::new(authorities, &config.streams, &config.stream_access);
    let routes = routes.with_doors(&config.doors, &config.streams);
    match &config.events {
        Some(events) => routes.closing(events.stream),
        None => routes,
    }
}

/// Tells a TCP client that HTTP/3 is served on the same port, and that it may remember that for a
/// day (RFC 7838 section 3).
fn alt_svc(port: u16) -> HeaderValue {
    HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).expect("it is visible ASCII")
}
