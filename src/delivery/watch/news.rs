//! News of streams in the log: each change once, streams with the same news in one line.

/// State of a stream that was logged last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Up,
    Away,
    /// It answers that the stream is missing, closed or unfit, which an operator has to mend.
    Unfit,
    Refusing,
}

/// Streams of which there is the same to tell.
pub(super) type News = Vec<(Told, String, Vec<String>)>;

/// Tells the log.
pub(super) fn tell(news: &News, has_spool: bool) {
    let meanwhile = if has_spool { "spooled" } else { "refused" };
    for (told, reason, names) in news {
        let streams = names.join(", ");
        match told {
            Told::Up => tracing::info!(streams, "the sink is back"),
            Told::Away => tracing::warn!(
                streams,
                reason,
                "the sink is away: new records are {meanwhile} until it is back"
            ),
            Told::Unfit => tracing::warn!(
                streams,
                reason,
                "the sink answers that it cannot take the stream: new records are {meanwhile} until it can"
            ),
            Told::Refusing => tracing::error!(
                streams,
                reason,
                "the sink answers but takes no records: new ones are {meanwhile} until it does"
            ),
        }
    }
}
