//! The parts of librdkafka that its Rust client lacks: a producer that wakes a task when it has
//! something to report, and that takes a topic by a handle rather than by a name that it looks up
//! for each message.
//!
//! The sink's client makes a [`Producer`], sends by it from delivery's thread and polls it there. A
//! topic's handle is made when the first record is sent to it, not before: many brokers create a
//! topic at a producer's first mention.
#![allow(unsafe_code)] // calls into librdkafka

use std::ffi::{CStr, CString, c_char, c_void};
use std::future::poll_fn;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use rdkafka::ClientConfig;
use rdkafka::bindings::{
    RD_KAFKA_MSG_F_COPY, rd_kafka_header_add, rd_kafka_headers_destroy, rd_kafka_headers_new,
    rd_kafka_headers_t, rd_kafka_message_status, rd_kafka_msg_partitioner_murmur2,
    rd_kafka_msg_status_t, rd_kafka_oauthbearer_set_token, rd_kafka_producev,
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_main,
    rd_kafka_queue_length, rd_kafka_queue_t, rd_kafka_resp_err_t, rd_kafka_sasl_set_credentials,
    rd_kafka_t, rd_kafka_topic_destroy, rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_vtype_t::*,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use crate::record::Timestamp;

/// A producer of librdkafka, which reports to its context. Its handles are dropped before it.
pub(crate) struct Producer<C: ProducerContext<DeliveryOpaque = usize>> {
    topics: Box<[(CString, OnceLock<Option<Topic>>)]>,
    events: Events,
    base: BaseProducer<C>,
}

/// A record as librdkafka takes it: all of it is copied.
pub(crate) struct Message<K, V> {
    pub key: Option<K>,
    pub value: V,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    pub headers: Headers,
    /// Comes back with the delivery report.
    pub opaque: usize,
}

impl Message<&str, &Bytes> {
    /// Makes a message of it that may wait.
    pub(crate) fn into_owned(self) -> Message<String, Bytes> {
        Message {
            key: self.key.map(str::to_owned),
            value: self.value.clone(),
            timestamp: self.timestamp,
            headers: self.headers,
            opaque: self.opaque,
        }
    }
}

impl<C: ProducerContext<DeliveryOpaque = usize>> Producer<C> {
    pub(crate) fn new(
        config: &ClientConfig,
        context: C,
        topics: &[CString],
    ) -> Result<Self, KafkaError> {
        let base = config.create_with_context(context)?;
        let topics = topics
            .iter()
            .map(|name| (name.clone(), OnceLock::new()))
            .collect();
        Ok(Self {
            topics,
            events: Events::of(&base),
            base,
        })
    }

    /// Sends to the topic at this place in the list, without waiting. An error is a message that is
    /// not on its way.
    pub(crate) fn send(
        &self,
        topic: usize,
        message: Message<impl AsRef<[u8]>, impl AsRef<[u8]>>,
    ) -> Result<(), RDKafkaErrorCode> {
        let (name, handle) = &self.topics[topic];
        let handle = handle.get_or_init(|| Topic::new(self.client().native_ptr(), name));
        let topic = handle.as_ref().ok_or(RDKafkaErrorCode::InvalidTopic)?;
        let Message {
            key,
            value,
            timestamp,
            headers,
            opaque,
        } = message;
        let (key, value) = (key.as_ref().map(AsRef::as_ref), value.as_ref());
        // SAFETY: each tag is followed by the arguments that the header of `rd_kafka_producev` asks
        // for, and the list ends with END. Key and value live until the call returns, which copies
        // them; the handle is of this very producer.
        let code = unsafe {
            rd_kafka_producev(
                self.client().native_ptr(),
                RD_KAFKA_VTYPE_RKT,
                topic.0,
                RD_KAFKA_VTYPE_MSGFLAGS,
                RD_KAFKA_MSG_F_COPY,
                RD_KAFKA_VTYPE_VALUE,
                value.as_ptr(),
                value.len(),
                RD_KAFKA_VTYPE_KEY,
                key.map_or(std::ptr::null(), <[u8]>::as_ptr),
                key.map_or(0, <[u8]>::len),
                RD_KAFKA_VTYPE_OPAQUE,
                opaque as *mut c_void,
                RD_KAFKA_VTYPE_TIMESTAMP,
                timestamp,
                RD_KAFKA_VTYPE_HEADERS,
                headers.0,
                RD_KAFKA_VTYPE_END,
            )
        };
        if code != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(code.into());
        }
        // librdkafka owns them once it has the message.
        std::mem::forget(headers);
        Ok(())
    }

    /// Waits until there is something to report.
    pub(crate) async fn has_events(&self) {
        poll_fn(|context| {
            self.events.waker.register(context.waker());
            if self.events.are_none() {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
    }

    /// Has everything reported that there is now.
    pub(crate) fn report(&self) {
        while !self.events.are_none() {
            self.base.poll(Duration::ZERO);
        }
    }

    pub(crate) fn client(&self) -> &Client<C> {
        self.base.client()
    }

    /// Counts the messages that have not been reported.
    pub(crate) fn in_flight_count(&self) -> usize {
        usize::try_from(self.base.in_flight_count()).unwrap_or_default()
    }
}

/// Holds the headers of a message, in their order.
pub(crate) struct Headers(*mut rd_kafka_headers_t);

// SAFETY: they are memory of the one who holds them, whichever thread that is.
unsafe impl Send for Headers {}

impl Headers {
    pub(crate) fn with_capacity(count: usize) -> Self {
        // SAFETY: it only allocates.
        Self(unsafe { rd_kafka_headers_new(count) })
    }

    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        let (name_bytes, value_bytes) = (name.len() as isize, value.len() as isize);
        // SAFETY: both texts are as long as told, and are copied. It fails only for headers that
        // are read-only.
        unsafe {
            rd_kafka_header_add(
                self.0,
                name.as_ptr().cast(),
                name_bytes,
                value.as_ptr().cast(),
                value_bytes,
            )
        };
    }
}

impl Drop for Headers {
    fn drop(&mut self) {
        // SAFETY: they are ours as long as no message has them.
        unsafe { rd_kafka_headers_destroy(self.0) };
    }
}

/// Finds the partition of a message by its key among so many, as `murmur2_random` does and Java's
/// producers do.
pub(crate) fn murmur2_partition(key: &[u8], partitions: u32) -> u32 {
    let count = i32::try_from(partitions).unwrap_or(i32::MAX);
    // SAFETY: it reads the key, as long as told, and neither the topic nor the opaque pointers.
    let partition = unsafe {
        rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            count,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    u32::try_from(partition).unwrap_or_default()
}

struct Topic(*mut rd_kafka_topic_t);

// SAFETY: librdkafka's handles may be used by any thread.
unsafe impl Send for Topic {}
// SAFETY: likewise, by several at once.
unsafe impl Sync for Topic {}

impl Topic {
    /// Makes the handle; `None` for a name that no topic can have.
    fn new(client: *mut rd_kafka_t, name: &CStr) -> Option<Self> {
        // SAFETY: the client lives; no settings of the topic's own are given.
        let handle = unsafe { rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()) };
        (!handle.is_null()).then_some(Self(handle))
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: it is of a client that lives, and is used no more.
        unsafe { rd_kafka_topic_destroy(self.0) };
    }
}

/// The queue of librdkafka's events, and the waker that it calls.
struct Events {
    queue: *mut rd_kafka_queue_t,
    waker: Arc<AtomicWaker>,
}

// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl Send for Events {}
// SAFETY: likewise, by several at once.
unsafe impl Sync for Events {}

impl Events {
    fn of<C: ProducerContext>(producer: &BaseProducer<C>) -> Self {
        let waker = Arc::new(AtomicWaker::new());
        // SAFETY: the client lives, and the waker does until the queue calls back no more.
        let queue = unsafe {
            let queue = rd_kafka_queue_get_main(producer.client().native_ptr());
            rd_kafka_queue_cb_event_enable(
                queue,
                Some(wake),
                Arc::as_ptr(&waker).cast_mut().cast(),
            );
            queue
        };
        Self { queue, waker }
    }

    fn are_none(&self) -> bool {
        // SAFETY: the queue lives as long as `self`.
        unsafe { rd_kafka_queue_length(self.queue) == 0 }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // SAFETY: the queue is destroyed once. It calls back under its lock, which the first call
        // takes: `wake` does not run any more when it returns.
        unsafe {
            rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Wakes the task: librdkafka calls it when the queue was empty and is no more.
unsafe extern "C" fn wake(_: *mut rd_kafka_t, waker: *mut c_void) {
    // SAFETY: `Events` gave a waker that it keeps as long as this may be called.
    unsafe { &*waker.cast::<AtomicWaker>() }.wake();
}

/// A token logs a client in by `OAUTHBEARER`.
pub(crate) struct Token {
    pub value: CString,
    /// Says whose it is; librdkafka logs it.
    pub principal: CString,
    pub expires_at: Timestamp,
    /// Further properties for the brokers: names of letters, and their values.
    pub extensions: Vec<(CString, CString)>,
}

/// Has the client log in with this password from its next connection on, by PLAIN or by SCRAM.
pub(crate) fn set_password<C: ClientContext>(client: &Client<C>, user: &CStr, password: &CStr) {
    // SAFETY: the client lives; both texts end with NUL, and are copied.
    let error = unsafe {
        rd_kafka_sasl_set_credentials(client.native_ptr(), user.as_ptr(), password.as_ptr())
    };
    assert!(
        error.is_null(),
        "it fails without a user or a password only"
    );
}

/// Has the client log in with this token from its next connection on. An error is a token that
/// librdkafka does not take.
pub(crate) fn set_token<C: ClientContext>(client: &Client<C>, token: &Token) -> Result<(), String> {
    let mut extensions = Vec::with_capacity(2 * token.extensions.len());
    for (name, value) in &token.extensions {
        extensions.extend([name.as_ptr(), value.as_ptr()]);
    }
    let mut reason = [0; 512];
    // SAFETY: the client lives; all texts end with NUL and are copied; there are as many extensions
    // as told, each a name followed by a value; the reason is written within its bytes, and ends
    // with NUL.
    let code = unsafe {
        rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.value.as_ptr(),
            i64::try_from(token.expires_at.0).unwrap_or(i64::MAX / 1000),
            token.principal.as_ptr(),
            extensions.as_mut_ptr(),
            extensions.len(),
            reason.as_mut_ptr().cast::<c_char>(),
            reason.len(),
        )
    };
    if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    let reason = CStr::from_bytes_until_nul(&reason);
    Err(reason.map_or_else(
        |_| format!("{code:?}"),
        |reason| reason.to_string_lossy().into(),
    ))
}

/// Whether the topic may have a message that librdkafka failed to deliver.
pub(crate) fn may_be_in_topic(message: &BorrowedMessage<'_>) -> bool {
    // SAFETY: the pointer is librdkafka's own and lives as long as the message; the call only
    // reads.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    status != rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}
