//! The guard of calls to addresses that a tenant or an operator names: nothing inside is reached through us.
//!
//! 1. The address as text ([`Guard::check`]), when it is kept and again before each call: https, no credentials, a public name or a public IP address, one of a few ports. What
//!    is not written in the plainest form (decimal or octal IP addresses, percent signs or other scripts in a host, a backslash) is refused, not understood.
//! 2. What a name stands for ([`is_public`]): natively a name is resolved by [`crate::native`]'s resolver, which gives the connection public addresses only, so that what was
//!    checked is what is connected to, whatever the name says a moment later. On Workers `fetch` resolves; that platform does not reach internal networks, and
//!    `global_fetch_strictly_public` keeps it from the deployment's own zone (`functions/billing/wrangler.toml`).
//! 3. A redirect is an answer like any other: it is not followed.
//!
//! - `OUTGOING_HOSTS`: the only hosts that are called, with commas between them; `*.example.com` is any below it. All unless set.
//! - `OUTGOING_INTERNAL`: hosts that are called although they are inside, by http too and on any port. For tests and development; none unless set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest address.
const MAX_URL: usize = 2048;

/// What https is served on.
const PORTS: [u16; 2] = [443, 8443];

/// Names that are nobody's in public: by their last labels (RFC 2606, 6761, 6762, 8375, 9476, and what networks at home and in companies use).
const INTERNAL_NAMES: [&str; 19] = [
    "localhost",
    "local",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "arpa",
    "test",
    "example",
    "invalid",
    "onion",
    "alt",
    "cluster",
    "svc",
    "consul",
    "docker",
];

/// Why an address is not called. Says what would be.
pub type Refusal = &'static str;

/// What a deployment lets be called.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Guard {
    only: Vec<String>,
    internal: Vec<String>,
}

impl Guard {
    /// From `OUTGOING_HOSTS` and `OUTGOING_INTERNAL`.
    pub fn read(setting: impl Fn(&str) -> Option<String>) -> Self {
        let list = |name: &str| {
            let text = setting(name).unwrap_or_default();
            text.split(',').map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect()
        };
        Self { only: list("OUTGOING_HOSTS"), internal: list("OUTGOING_INTERNAL") }
    }

    /// Whether a host may be inside.
    pub fn is_exempt(&self, host: &str) -> bool {
        self.internal.iter().any(|exempt| exempt == host)
    }

    /// Whether this address may be called, as far as its text says it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, url: &str) -> Result<(), Refusal> {
        let Address { is_https, host, port } = Address::parse(url)?;
        let host = host.to_ascii_lowercase();
        if self.is_exempt(&host) {
            return Ok(());
        }
        if !is_https {
            return Err("the address begins with https://");
        }
        if !PORTS.contains(&port.unwrap_or(443)) {
            return Err("the address has port 443 or 8443");
        }
        match Host::parse(&host)? {
            Host::Ip(ip) if is_public(ip) => {}
            Host::Ip(_) => return Err("the address is an internal one"),
            Host::Name => {
                let last = host.rsplit('.').next().unwrap_or_default();
                if !host.contains('.') || INTERNAL_NAMES.contains(&last) {
                    return Err("the host is the name of something internal");
                }
            }
        }
        let is_listed = |entry: &String| match entry.strip_prefix("*.") {
            Some(above) => host.strip_suffix(above).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => *entry == host,
        };
        if self.only.is_empty() || self.only.iter().any(is_listed) { Ok(()) } else { Err("this deployment does not call that host") }
    }
}

/// The parts of an address that decide.
struct Address<'a> {
    is_https: bool,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Result<Self, Refusal> {
        if url.len() > MAX_URL
            || !url
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#'))
        {
            return Err("an address has at most 2048 characters, all of them printable ASCII without spaces, and no fragment");
        }
        let (is_https, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("the address begins with https://"),
        };
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("the address holds no user and no password");
        }
        let (host, port) = match authority.rfind(':').filter(|at| !authority[*at..].contains(']')) {
            Some(at) => {
                let digits = &authority[at + 1..];
                let port = digits.parse().ok().filter(|port| *port > 0 && digits.bytes().all(|b| b.is_ascii_digit()));
                (&authority[..at], Some(port.ok_or("the port is a number from 1 to 65535")?))
            }
            None => (authority, None),
        };
        Ok(Self { is_https, host, port })
    }
}

/// What stands for a host.
enum Host {
    Name,
    Ip(IpAddr),
}

impl Host {
    fn parse(host: &str) -> Result<Self, Refusal> {
        const NAME: Refusal = "the host is a name of letters, digits, '-' and '.', or an IP address in its plain form";
        if let Some(inside) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return inside.parse::<Ipv6Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| NAME);
        }
        let labels = || host.split('.');
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if host.len() > 253 || !labels().all(is_label) {
            return Err(NAME);
        }
        // What ends in a number is an IP address to whoever reads it (WHATWG URL, "ends in a number"), in whatever notation: one only is taken here.
        let last = labels().next_back().unwrap_or_default();
        let is_number = last.bytes().all(|b| b.is_ascii_digit())
            || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_number {
            return host.parse::<Ipv4Addr>().map(|ip| Self::Ip(ip.into())).map_err(|_| NAME);
        }
        Ok(Self::Name)
    }
}

/// Whether an IP address is somebody's in public: not in IANA's registries of special-purpose addresses, not multicast, not where a cloud keeps its own services. What stands in an
/// IPv6 address for an IPv4 one is judged as that one.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    // Network and length of its prefix.
    const SPECIAL: [([u8; 4], u32); 17] = [
        ([0, 0, 0, 0], 8),
        ([10, 0, 0, 0], 8),
        ([100, 64, 0, 0], 10),
        ([127, 0, 0, 0], 8),
        ([168, 63, 129, 16], 32), // Azure's host
        ([169, 254, 0, 0], 16),   // link-local; clouds' metadata
        ([172, 16, 0, 0], 12),
        ([192, 0, 0, 0], 24),
        ([192, 0, 2, 0], 24),
        ([192, 31, 196, 0], 24),
        ([192, 52, 193, 0], 24),
        ([192, 88, 99, 0], 24),
        ([192, 168, 0, 0], 16),
        ([198, 18, 0, 0], 15),
        ([198, 51, 100, 0], 24),
        ([203, 0, 113, 0], 24),
        ([224, 0, 0, 0], 3), // multicast, and all above
    ];
    let bits = u32::from(ip);
    !SPECIAL.iter().any(|(network, length)| (bits ^ u32::from_be_bytes(*network)) >> (32 - length) == 0)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        // IPv4-mapped, and NAT64's well-known prefix (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(embedded()),
        // Teredo, ORCHID and other protocols' own; documentation; 6to4; ISATAP (RFC 5214), which stands for an IPv4 address inside.
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x2002 | 0x3fff, ..] | [_, _, _, _, 0 | 0x200, 0x5efe, ..] => false,
        // Global unicast is 2000::/3.
        [first, ..] => first >> 13 == 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(only: &str, internal: &str) -> Guard {
        Guard::read(|name| Some(if name == "OUTGOING_HOSTS" { only } else { internal }.to_owned()))
    }

    #[test]
    fn what_is_public_is_called() {
        let guard = Guard::default();
        for url in [
            "https://hooks.example.com/x",
            "https://HOOKS.Example.com",
            "https://hooks.example.com:8443/a/b?c=d&e=%20",
            "https://xn--bcher-kva.example.org:443/",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/x",
            "https://[64:ff9b::808:808]/",
            "https://a.co?x=@y:z",
        ] {
            assert_eq!(guard.check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn nothing_inside_is_called_in_any_notation() {
        let guard = Guard::default();
        for url in [
            "http://hooks.example.com/",
            "ftp://hooks.example.com/",
            "//hooks.example.com/",
            "https:hooks.example.com",
            "https:///x",
            "https://",
            "https://user@hooks.example.com/",
            "https://user:password@hooks.example.com/",
            "https://hooks.example.com@10.0.0.1/",
            "https://hooks.example.com:80/",
            "https://hooks.example.com:22/",
            "https://hooks.example.com:0/",
            "https://hooks.example.com:/",
            "https://hooks.example.com:+443/",
            "https://hooks.example.com:65979/",
            "https://hooks.example.com/#x",
            "https://hooks.example.com\\@10.0.0.1/",
            "https://hooks.example.com/a b",
            "https://hooks.example.com/\r\nx",
            "https://hooks.example.com\t/",
            "https://hooks.example.com./",
            "https://.example.com/",
            "https://hooks..example.com/",
            "https://-hooks.example.com/",
            "https://hooks_x.example.com/",
            "https://hooks%2eexample.com/",
            "https://höoks.example.com/",
            "https://ⓔxample.com/",
            "https://localhost/",
            "https://LOCALHOST/",
            "https://a.localhost/",
            "https://intranet/",
            "https://db.internal/",
            "https://metadata.google.internal/computeMetadata/v1/",
            "https://printer.local/",
            "https://1.0.0.127.in-addr.arpa/",
            "https://kubernetes.default.svc/",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://127.0.0.01/",
            "https://10.0.0.0x1/",
            "https://example.0x/",
            "https://127.0.0.1.",
            "https://0.0.0.0/",
            "https://0/",
            "https://10.1.2.3/",
            "https://100.64.0.1/",
            "https://100.100.100.200/",
            "https://168.63.129.16/",
            "https://169.254.169.254/latest/meta-data/",
            "https://172.31.255.255/",
            "https://192.0.0.192/",
            "https://192.168.1.1/",
            "https://198.19.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::]/",
            "https://[::1]/",
            "https://[::127.0.0.1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[64:ff9b:1::a00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
            "https://[2001:db8::1]/",
            "https://[2606:4700::5efe:a00:1]/",
            "https://[fd00:ec2::254]/",
            "https://[fc00::1]/",
            "https://[fe80::1]/",
            "https://[fe80::1%25eth0]/",
            "https://[fec0::1]/",
            "https://[ff02::1]/",
            "https://[100::1]/",
            "https://[::1/",
            "https://::1/",
        ] {
            assert!(guard.check(url).is_err(), "{url}");
        }
        assert!(guard.check(&format!("https://hooks.example.com/{}", "a".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn the_edges_of_the_ranges() {
        for (inside, outside) in [
            ("0.255.255.255", "1.0.0.0"),
            ("10.255.255.255", "11.0.0.0"),
            ("100.127.255.255", "100.128.0.0"),
            ("100.64.0.0", "100.63.255.255"),
            ("127.255.255.255", "128.0.0.0"),
            ("169.254.0.0", "169.253.255.255"),
            ("172.16.0.0", "172.15.255.255"),
            ("172.31.255.255", "172.32.0.0"),
            ("192.168.255.255", "192.169.0.0"),
            ("198.18.0.0", "198.17.255.255"),
            ("198.19.255.255", "198.20.0.0"),
            ("224.0.0.0", "223.255.255.255"),
            ("1fff:ffff::", "2000::1"),
            ("4000::", "3ffe:ffff::1"),
            ("2001:1ff::1", "2001:200::1"),
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn a_deployments_list_is_all_that_is_called() {
        let guard = guard("hooks.example.com, *.Customer.com", "");
        for url in ["https://hooks.example.com/x", "https://a.customer.com/", "https://a.b.customer.com/"] {
            assert_eq!(guard.check(url), Ok(()), "{url}");
        }
        for url in [
            "https://example.com/",
            "https://customer.com/",
            "https://evil-customer.com/",
            "https://hooks.example.com.evil.org/",
            "https://8.8.8.8/",
        ] {
            assert!(guard.check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_exempt_is_that_host_and_no_other() {
        let guard = guard("", "127.0.0.1");
        for url in ["http://127.0.0.1:9000/x", "https://127.0.0.1/"] {
            assert_eq!(guard.check(url), Ok(()), "{url}");
        }
        for url in [
            "http://127.0.0.2:9000/",
            "http://localhost:9000/",
            "http://[::1]:9000/",
            "https://127.1/",
            "http://user@127.0.0.1/",
            "http://8.8.8.8/",
        ] {
            assert!(guard.check(url).is_err(), "{url}");
        }
    }
}
