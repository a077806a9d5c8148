//! Bodies of answers: passed on as they come, cut short, or broken off.

use anyhow::{Error, anyhow};
use futures::{FutureExt, StreamExt, stream};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Body, Bytes, Frame},
};
use tokio_util::sync::CancellationToken;

/// A body as the proxies pass it on. An error in it breaks the connection off.
pub(super) type Passing = UnsyncBoxBody<Bytes, Error>;

/// A body that is known.
pub(super) fn whole(content: impl Into<Bytes>) -> Passing {
    Full::new(content.into()).map_err(Error::from).boxed_unsync()
}

/// A body that is passed on as it comes, until `broken` breaks it off.
pub(super) fn streamed<B>(body: B, broken: CancellationToken) -> Passing
where
    B: Body<Data = Bytes, Error: Into<Error>> + Send + 'static,
{
    let broken = async move { broken.cancelled_owned().await }.shared();
    let passed = BodyStream::new(body).map(|frame| frame.map_err(Into::into));
    let broken_off = broken.clone();
    let passed = passed.take_until(broken).chain(
        // Reached at the end of the body, too, where nothing is to be added.
        stream::once(async move { broken_off.now_or_never() })
            .filter_map(|broken| async move { broken.map(|()| Err(anyhow!("broken off by the test"))) }),
    );
    BodyExt::boxed_unsync(StreamBody::new(Box::pin(passed)))
}

/// The first bytes of an answer; then the connection breaks.
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
            .chain(stream::once(async { Err(anyhow!("cut short by the test")) }));
        BodyExt::boxed_unsync(StreamBody::new(Box::pin(first)))
    })
}
