//! Bodies of responses: forwarded as they are, altered, truncated, silent, or broken off.

use anyhow::{Error, anyhow};
use futures::{FutureExt, StreamExt, stream};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Body, Bytes, Frame},
};
use tokio_util::sync::CancellationToken;

/// A body as forwarded by the proxies. An error in it breaks the connection.
pub(super) type Passing = UnsyncBoxBody<Bytes, Error>;

/// A fixed body.
pub(super) fn whole(content: impl Into<Bytes>) -> Passing {
    Full::new(content.into()).map_err(Error::from).boxed_unsync()
}

/// Forwards a body as it comes, until `broken` breaks it off.
pub(super) fn streamed<B>(body: B, broken: CancellationToken) -> Passing
where
    B: Body<Data = Bytes, Error: Into<Error>> + Send + 'static,
{
    let broken = async move { broken.cancelled_owned().await }.shared();
    let passed = BodyStream::new(body).map(|frame| frame.map_err(Into::into));
    let broken_off = broken.clone();
    let passed = passed.take_until(broken).chain(
        // Also reached at the end of the body, where nothing is added.
        stream::once(async move { broken_off.now_or_never() })
            .filter_map(|broken| async move { broken.map(|()| Err(anyhow!("broken off by the test"))) }),
    );
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(passed)))
}

/// A silent body, until `broken` breaks it off.
pub(super) fn silent(broken: CancellationToken) -> Passing {
    let nothing = stream::pending::<Result<Frame<Bytes>, Error>>();
    streamed(StreamBody::new(nothing), broken)
}

/// Forwards a body, with each line replaced by `alter`.
pub(super) fn by_line(body: Passing, alter: impl Fn(Vec<u8>) -> Vec<u8> + Send + 'static) -> Passing {
    let mut begun = Vec::new();
    let altered = BodyStream::new(body).map(move |frame| {
        begun.extend_from_slice(&frame?.into_data().unwrap_or_default());
        let end = begun.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let lines: Vec<u8> = begun.drain(..end).collect();
        let lines = lines.split_inclusive(|byte| *byte == b'\n').flat_map(|line| alter(line.to_vec()));
        Ok::<_, Error>(Frame::data(lines.collect()))
    });
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(altered)))
}

/// Forwards the first bytes of a response; then the connection breaks.
pub(super) fn cut(answer: Response<Passing>, after: usize) -> Response<Passing> {
    answer.map(|body| {
        let mut left = after;
        let first = BodyStream::new(body)
            .scan((), move |(), frame| {
                let data = frame.ok().and_then(|frame| frame.into_data().ok());
                let part = data.filter(|_| left > 0).map(|data| data.slice(..data.len().min(left)));
                left -= part.as_ref().map_or(0, Bytes::len);
                async move { part.map(|part| Ok(Frame::data(part))) }
            })
            .chain(stream::once(async {
                // A response is only flushed once its body has nothing to give: without this pause the
                // error would often take the head of the response and the first bytes with it.
                tokio::task::yield_now().await;
                Err(anyhow!("cut short by the test"))
            }));
        BodyExt::boxed_unsync(StreamBody::new(Box::pin(first)))
    })
}
