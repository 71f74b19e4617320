//! Connections to servers that a setting or a document names.

use std::io;

use pinnace_proxy::Stream;
use tokio::net::lookup_host;

use crate::settings::Place;

/// Connects; a name is asked for each time.
///
/// # Errors
/// The name leads nowhere, or nobody accepts there.
pub async fn connect(place: &Place) -> io::Result<Stream> {
    match place {
        Place::At(addresses) => Stream::connect(addresses.iter().copied()).await,
        Place::Named(name, port) => {
            Stream::connect(lookup_host((name.as_str(), *port)).await?).await
        }
    }
}
