//! Work that is finished whether or not the client waits for it.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;

use super::error::Error;

/// A future that is driven by whoever awaits it, without a task of its own. When that one is
/// gone because the client hung up, a task takes over.
pub(super) struct Finish<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Finish<Result<T, Error>> {
    /// A panic becomes [`Error::Internal`].
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        let caught = AssertUnwindSafe(work).catch_unwind();
        Self(Some(Box::pin(caught.map(|done| done.map_err(|_| Error::Internal)))))
    }
}

impl<T: Send + 'static> Future for Finish<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let work = self.0.as_mut().expect("not polled again after its end");
        let done = std::task::ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Finish<T> {
    fn drop(&mut self) {
        if let Some(work) = self.0.take() {
            tokio::spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits() {
        let (done, is_done) = tokio::sync::oneshot::channel();
        let work = Finish::new(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            done.send(()).expect("the test waits");
        });
        assert!(tokio::time::timeout(Duration::from_millis(1), work).await.is_err());
        is_done.await.expect("finished");
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        let work: Finish<Result<(), Error>> = Finish::new(async { panic!("on purpose") });
        assert!(matches!(work.await, Err(Error::Internal)));
    }
}
