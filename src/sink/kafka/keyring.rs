//! The secret in force, and the clients of librdkafka that log in with it.
//!
//! `login` changes the secret; the sink's producers and its admin client [enter](Keyring::enter)
//! when they are made. A client that has entered logs in with the secret in force whenever it makes
//! a connection; connections that are there go on, and so does what is in flight on them. Bounds:
//! as many entries as clients live, a handful.

use std::ffi::CString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::client::{Client, ClientContext};
use rdkafka::producer::ProducerContext;

use super::native::{self, Producer, Token};

/// A secret that a client logs in with.
pub(crate) enum Secret {
    Password { user: CString, password: CString },
    Token(Token),
}

/// A client that can be told another secret.
pub(crate) trait LogsIn: Send + Sync {
    /// Uses the secret for all further connections. An error is a secret that librdkafka does not
    /// take.
    fn log_in_with(&self, secret: &Secret) -> Result<(), String>;
}

/// Knows the secret in force.
#[derive(Default)]
pub(crate) struct Keyring(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// `None` where librdkafka needs none, and as long as there is no token.
    secret: Option<Secret>,
    clients: Vec<Weak<dyn LogsIn>>,
}

impl Keyring {
    /// Puts the password in force into a new client's configuration: it may connect before it
    /// enters.
    pub(crate) fn configure(&self, config: &mut ClientConfig) {
        if let Some(Secret::Password { password, .. }) = &self.held().secret {
            let password = password.to_str().expect("it was read as text");
            config.set("sasl.password", password);
        }
    }

    /// Has the client log in with the secret in force, and with every later one.
    pub(crate) fn enter(&self, client: &Arc<impl LogsIn + 'static>) {
        let mut held = self.held();
        let taken = held
            .secret
            .as_ref()
            .map(|secret| client.log_in_with(secret));
        if let Some(Err(reason)) = taken {
            // A token that has run out meanwhile: the next one is on its way.
            tracing::warn!(reason, "librdkafka does not take the secret in force");
        }
        held.clients.retain(|client| client.strong_count() > 0);
        let entry = Arc::downgrade(client);
        held.clients.push(entry);
    }

    /// Puts another secret in force. Returns the error of a client that does not take it.
    pub(crate) fn change(&self, secret: Secret) -> Result<(), String> {
        let mut held = self.held();
        let mut taken = Ok(());
        for client in held.clients.iter().filter_map(Weak::upgrade) {
            taken = taken.and(client.log_in_with(&secret));
        }
        held.secret = Some(secret);
        taken
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: ProducerContext<DeliveryOpaque = usize>> LogsIn for Producer<C> {
    fn log_in_with(&self, secret: &Secret) -> Result<(), String> {
        log_in(self.client(), secret)
    }
}

impl<C: ClientContext> LogsIn for AdminClient<C> {
    fn log_in_with(&self, secret: &Secret) -> Result<(), String> {
        log_in(self.inner(), secret)
    }
}

fn log_in<C: ClientContext>(client: &Client<C>, secret: &Secret) -> Result<(), String> {
    match secret {
        Secret::Password { user, password } => {
            native::set_password(client, user, password);
            Ok(())
        }
        Secret::Token(token) => native::set_token(client, token),
    }
}
