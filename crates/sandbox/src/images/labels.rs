//! Labels by which an image that Pinnace has built says what it has not got in its layers.

use oci_spec::image::ImageConfiguration;
use pinnace_core::{
    build::{BUILT_ON_HOST, LABEL_BASE, LABEL_WATCHDOG},
    image::WatchdogKind,
};

/// Whether it stands on the host's own programs.
pub(super) fn is_on_host(image: &ImageConfiguration) -> bool {
    label(image, LABEL_BASE) == Some(BUILT_ON_HOST)
}

/// The watchdog that the platform is to bring for it.
pub(super) fn watchdog(image: &ImageConfiguration) -> Option<WatchdogKind> {
    let wanted = label(image, LABEL_WATCHDOG)?;
    [WatchdogKind::Of, WatchdogKind::Classic].into_iter().find(|kind| kind.name() == wanted)
}

fn label<'a>(image: &'a ImageConfiguration, name: &str) -> Option<&'a str> {
    let labels = image.config().as_ref()?.labels().as_ref()?;
    labels.get(name).map(String::as_str)
}
