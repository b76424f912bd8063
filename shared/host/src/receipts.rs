//! Signs receipts by the host's cryptography, with the first key of `RECEIPT_KEYS`.

use crate::Host;
use astra_kernel::{ConfigError, receipt};

/// The receipt of an entry, of the text that the database has made of it.
///
/// # Errors
/// When there is no key.
pub async fn of<H: Host>(host: &H, text: &str) -> Result<Option<String>, ConfigError> {
    let Some((kid, seed)) = host.shared().receipt_keys()?.signing() else { return Ok(None) };
    let signed = receipt::signed_part(kid, text);
    Ok(host.sign(seed, signed.as_bytes()).await.map(|signature| receipt::compact(&signed, &signature)))
}
