//! The client for AWS, and the renewal of its credentials.
//!
//! The SDK finds credentials and renews them before they expire. It does not listen when the
//! service refuses them: after a clock that was wrong, a session that was ended, keys that were
//! taken back. It would also go on with its copy of a file that has been rewritten since. So the
//! sink calls [`Clients::renew`], and a client that knows nothing takes the place of the old one,
//! once a second at most ([`Renewed`]). Calls in flight end with the client they began with.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::identity::IdentityCache;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::ProvideCredentials;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Credentials are not asked for anew more often, whatever the service says.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// Makes clients of one configuration; streams share the one in use.
pub(crate) struct Clients {
    config: SdkConfig,
    chain: Option<Chain>,
    credentials_timeout: Duration,
    client: Renewed<Client>,
}

impl Clients {
    /// `credentials_timeout` bounds the search for credentials; `chain` is where `config` has them
    /// from, if not from somewhere of its own.
    pub(crate) fn new(
        config: SdkConfig,
        chain: Option<Chain>,
        credentials_timeout: Duration,
    ) -> Self {
        let client = Renewed::new(client(&config, credentials_timeout));
        Self {
            config,
            chain,
            credentials_timeout,
            client,
        }
    }

    pub(crate) fn current(&self) -> Client {
        self.client.current()
    }

    pub(crate) fn renew(&self) {
        self.client.renew(|| {
            self.chain.iter().for_each(Chain::forget);
            client(&self.config, self.credentials_timeout)
        });
    }
}

/// A value that lasts as long as its credentials are good.
#[derive(Debug)]
pub(super) struct Renewed<T>(Mutex<Current<T>>);

#[derive(Debug)]
struct Current<T> {
    value: T,
    renewed_at: Option<Instant>,
}

impl<T: Clone> Renewed<T> {
    pub(crate) fn new(value: T) -> Self {
        let renewed_at = None;
        Self(Mutex::new(Current { value, renewed_at }))
    }

    pub(crate) fn current(&self) -> T {
        self.lock().value.clone()
    }

    /// Makes it anew, unless that was done less than [`RENEWAL_INTERVAL`] ago.
    pub(crate) fn renew(&self, make: impl FnOnce() -> T) {
        let current = &mut *self.lock();
        let is_new = |renewed_at: Instant| renewed_at.elapsed() < RENEWAL_INTERVAL;
        if current.renewed_at.is_some_and(is_new) {
            return;
        }
        tracing::warn!("the AWS credentials are no longer good: new ones are asked for");
        *current = Current {
            value: make(),
            renewed_at: Some(Instant::now()),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Current<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client(config: &SdkConfig, credentials_timeout: Duration) -> Client {
    let cache = IdentityCache::lazy()
        .load_timeout(credentials_timeout)
        .build();
    Client::new(&config.to_builder().identity_cache(cache).build())
}

/// The SDK's own places for credentials (environment, files, web identity, container, instance),
/// looked up anew after [`forget`](Self::forget).
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain(Arc<Mutex<Arc<OnceCell<DefaultCredentialsChain>>>>);

impl Chain {
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
    }

    fn current(&self) -> Arc<OnceCell<DefaultCredentialsChain>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        let chain = self.current();
        Provided::new(async move {
            chain
                .get_or_init(|| DefaultCredentialsChain::builder().build())
                .await
                .provide_credentials()
                .await
        })
    }
}
