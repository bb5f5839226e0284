//! The client for AWS, and the renewal of its credentials.
//!
//! The SDK finds credentials and renews them before they expire. It does not listen when the
//! service refuses them: after a clock that was wrong, a session that was ended, keys that were
//! taken back. It would also go on with its copy of a file that has been rewritten since. So the
//! sink calls [`Clients::renew`], and a client that knows nothing takes the place of the old one,
//! once a second at most. Calls in flight end with the client they began with.

use std::sync::{Arc, Mutex, PoisonError};
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
pub(super) struct Clients {
    config: SdkConfig,
    chain: Option<Chain>,
    credentials_timeout: Duration,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    renewed_at: Option<Instant>,
}

impl Clients {
    /// `credentials_timeout` bounds the search for credentials; `chain` is where `config` has them
    /// from, if not from somewhere of its own.
    pub(crate) fn new(
        config: SdkConfig,
        chain: Option<Chain>,
        credentials_timeout: Duration,
    ) -> Self {
        let current = Mutex::new(Current {
            client: client(&config, credentials_timeout),
            renewed_at: None,
        });
        Self {
            config,
            chain,
            credentials_timeout,
            current,
        }
    }

    pub(crate) fn current(&self) -> Client {
        self.current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .client
            .clone()
    }

    pub(crate) fn renew(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .renewed_at
            .is_none_or(|renewed_at| renewed_at.elapsed() >= RENEWAL_INTERVAL)
        {
            tracing::warn!("the AWS credentials are no longer good: new ones are asked for");
            self.chain.iter().for_each(Chain::forget);
            let client = client(&self.config, self.credentials_timeout);
            *current = Current {
                client,
                renewed_at: Some(Instant::now()),
            };
        }
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
pub(super) struct Chain(Arc<Mutex<Arc<OnceCell<DefaultCredentialsChain>>>>);

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
