//! What is known of the stream, its route, its connection and the client's certificate.

use mlua::Value;

use super::{Call, Outcome, Raw, of_lua};
use crate::host::{Host, Metadata, SslList, SslNumber, SslText, Text};
use crate::session::{CONNECTION, DYNAMIC, FILTER_CONTEXT, METADATA, SSL, STREAM_INFO};
use crate::value;

pub(super) fn methods<H: Host>(raw: &Raw<'_>) -> mlua::Result<()> {
    raw.add::<H, METADATA>(
        "metadata",
        &[
            ("get", |call| metadata_get(call, Metadata::Route)),
            ("pairs", |call| metadata_pairs(call, Metadata::Route)),
            ("step", |call| call.step(METADATA)),
        ],
    )?;
    raw.add::<H, FILTER_CONTEXT>(
        "filterContext",
        &[
            ("get", |call| metadata_get(call, Metadata::FilterContext)),
            ("pairs", |call| {
                metadata_pairs(call, Metadata::FilterContext)
            }),
            ("step", |call| call.step(FILTER_CONTEXT)),
        ],
    )?;
    raw.add::<H, STREAM_INFO>(
        "streamInfo",
        &[
            ("protocol", |call| text(call, Text::Protocol)),
            ("routeName", |call| text(call, Text::RouteName)),
            ("downstreamLocalAddress", |call| {
                text(call, Text::LocalAddress)
            }),
            ("downstreamDirectLocalAddress", |call| {
                text(call, Text::DirectLocalAddress)
            }),
            ("downstreamRemoteAddress", |call| {
                text(call, Text::RemoteAddress)
            }),
            ("downstreamDirectRemoteAddress", |call| {
                text(call, Text::DirectRemoteAddress)
            }),
            ("requestedServerName", |call| {
                text(call, Text::RequestedServerName)
            }),
            ("dynamicMetadata", |call| call.object::<DYNAMIC>()),
            ("downstreamSslConnection", ssl),
        ],
    )?;
    raw.add::<H, DYNAMIC>(
        "dynamic",
        &[
            ("get", dynamic_get),
            ("set", dynamic_set),
            ("pairs", dynamic_pairs),
            ("step", |call| call.step(DYNAMIC)),
        ],
    )?;
    raw.add::<H, CONNECTION>("connection", &[("ssl", ssl)])?;
    raw.add::<H, SSL>(
        "ssl",
        &[
            ("peerCertificatePresented", |call| {
                flag(call, SslNumber::Presented)
            }),
            ("peerCertificateValidated", |call| {
                flag(call, SslNumber::Validated)
            }),
            ("uriSanLocalCertificate", |call| {
                list(call, SslList::UriSanLocal)
            }),
            ("uriSanPeerCertificate", |call| {
                list(call, SslList::UriSanPeer)
            }),
            ("dnsSansLocalCertificate", |call| {
                list(call, SslList::DnsSansLocal)
            }),
            ("dnsSansPeerCertificate", |call| {
                list(call, SslList::DnsSansPeer)
            }),
            ("sha256PeerCertificateDigest", |call| {
                ssl_text(call, SslText::Sha256PeerCertificateDigest)
            }),
            ("serialNumberPeerCertificate", |call| {
                ssl_text(call, SslText::SerialNumberPeerCertificate)
            }),
            ("issuerPeerCertificate", |call| {
                ssl_text(call, SslText::IssuerPeerCertificate)
            }),
            ("subjectPeerCertificate", |call| {
                ssl_text(call, SslText::SubjectPeerCertificate)
            }),
            ("subjectLocalCertificate", |call| {
                ssl_text(call, SslText::SubjectLocalCertificate)
            }),
            ("urlEncodedPemEncodedPeerCertificate", |call| {
                ssl_text(call, SslText::PemPeerCertificate)
            }),
            ("urlEncodedPemEncodedPeerCertificateChain", |call| {
                ssl_text(call, SslText::PemPeerCertificateChain)
            }),
            ("ciphersuiteString", |call| {
                ssl_text(call, SslText::CiphersuiteString)
            }),
            ("tlsVersion", |call| ssl_text(call, SslText::TlsVersion)),
            ("validFromPeerCertificate", |call| {
                number(call, SslNumber::ValidFromPeer)
            }),
            ("expirationPeerCertificate", |call| {
                number(call, SslNumber::ExpirationPeer)
            }),
        ],
    )
}

fn text<H: Host>(call: &Call<'_, H>, which: Text) -> Outcome {
    let text = call.host(|host| host.text(which).into_owned())?;
    call.string(text)
}

fn metadata_get<H: Host>(call: &Call<'_, H>, which: Metadata) -> Outcome {
    let key = call.text(0)?.to_string_lossy();
    let value = call.host(|host| host.metadata(which)?.get(&key).cloned())?;
    match value {
        Some(value) => call.one(value::to_lua(call.lua, &value).map_err(of_lua)?),
        None => call.none(),
    }
}

fn metadata_pairs<H: Host>(call: &Call<'_, H>, which: Metadata) -> Outcome {
    let fields = call.host(|host| host.metadata(which).cloned().unwrap_or_default())?;
    let mut pairs = Vec::with_capacity(fields.len() * 2);
    for (key, value) in &fields {
        pairs.push(Value::String(call.lua.create_string(key).map_err(of_lua)?));
        pairs.push(value::to_lua(call.lua, value).map_err(of_lua)?);
    }
    let kind = match which {
        Metadata::Route => METADATA,
        Metadata::FilterContext => FILTER_CONTEXT,
    };
    call.iterate(kind, pairs)
}

fn dynamic_get<H: Host>(call: &Call<'_, H>) -> Outcome {
    let filter = call.text(0)?.to_string_lossy();
    let fields = call.host(|host| host.dynamic(&filter).map(std::borrow::Cow::into_owned))?;
    match fields {
        Some(fields) => call.one(value::table(call.lua, &fields).map_err(of_lua)?),
        None => call.none(),
    }
}

fn dynamic_set<H: Host>(call: &Call<'_, H>) -> Outcome {
    if call.session.iterating.get() & (1 << DYNAMIC) != 0 {
        return Err("dynamic metadata map cannot be modified while iterating".to_owned());
    }
    let filter = call.text(0)?.to_string_lossy();
    let key = call.text(1)?.to_string_lossy();
    let value = value::from_lua(call.arguments.get(2).unwrap_or(&Value::Nil))?;
    call.host(|host| host.set_dynamic(&filter, &key, value))?;
    call.none()
}

fn dynamic_pairs<H: Host>(call: &Call<'_, H>) -> Outcome {
    let all = call.host(|host| {
        let names = host.dynamic_names();
        let fields = names
            .into_iter()
            .filter_map(|name| Some((host.dynamic(&name)?.into_owned(), name)));
        fields.collect::<Vec<_>>()
    })?;
    let mut pairs = Vec::with_capacity(all.len() * 2);
    for (fields, name) in &all {
        pairs.push(Value::String(call.lua.create_string(name).map_err(of_lua)?));
        let table = value::table(call.lua, fields).map_err(of_lua)?;
        pairs.push(Value::Table(table));
    }
    call.iterate(DYNAMIC, pairs)
}

fn ssl<H: Host>(call: &Call<'_, H>) -> Outcome {
    if call.host(|host| host.is_secure())? {
        call.object::<SSL>()
    } else {
        call.one(Value::Nil)
    }
}

fn ssl_text<H: Host>(call: &Call<'_, H>, which: SslText) -> Outcome {
    let text = call.host(|host| host.ssl_text(which))?;
    call.string(text)
}

fn list<H: Host>(call: &Call<'_, H>, which: SslList) -> Outcome {
    let list = call.host(|host| host.ssl_list(which))?;
    call.one(call.lua.create_sequence_from(list).map_err(of_lua)?)
}

fn number<H: Host>(call: &Call<'_, H>, which: SslNumber) -> Outcome {
    let number = call.host(|host| host.ssl_number(which))?;
    call.one(number)
}

fn flag<H: Host>(call: &Call<'_, H>, which: SslNumber) -> Outcome {
    let number = call.host(|host| host.ssl_number(which))?;
    call.one(number != 0)
}
