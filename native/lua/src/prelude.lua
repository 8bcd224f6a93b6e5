-- The objects that scripts are given. What the methods do is `raw`'s, which says whether it has succeeded and then what it
-- returns: errors are raised here, so that they are strings with the place of the script's call, as those of Lua's own
-- functions. What must wait yields here.
local raw, timestamp_resolution = ...
local yield, error, setmetatable = coroutine.yield, error, setmetatable

local function finish(ok, ...)
  if ok then
    return ...
  end
  error((...), 2)
end

-- `raw` has noted what is waited for, if anything.
local function finish_or_wait(ok, waits, ...)
  if not ok then
    error(waits, 2)
  elseif waits then
    return finish(yield())
  end
  return ...
end

local function method(name)
  local call = raw[name]
  return function(...)
    return finish(call(...))
  end
end

local function waiting(name)
  local call = raw[name]
  return function(...)
    return finish_or_wait(call(...))
  end
end

local function missing(name)
  return function()
    error(name .. "() is not supported", 2)
  end
end

local function methods(prefix, names)
  local class = {}
  for _, name in ipairs(names) do
    class[name] = method(prefix .. name)
  end
  return class
end

-- Steps through a list of pairs that `raw` has taken down; the object may not be changed before the end.
local function iterator(prefix)
  local begin, step = raw[prefix .. "pairs"], raw[prefix .. "step"]
  return function(object)
    local ok, list = begin(object)
    if not ok then
      error(list, 2)
    end
    local at, count = -1, list.n
    return function()
      at = at + 2
      local alive, why = step(object, at > count)
      if not alive then
        error(why, 2)
      end
      if at <= count then
        return list[at], list[at + 1]
      end
    end
  end
end

local kit = {}

kit.handle = methods("handle_", {
  "headers", "metadata", "filterContext", "streamInfo", "connection", "connectionStreamInfo", "clearRouteCache",
  "logTrace", "logDebug", "logInfo", "logWarn", "logErr", "logCritical",
  "base64Escape", "timestamp", "timestampString",
})
kit.handle.body = waiting("handle_body")
kit.handle.trailers = waiting("handle_trailers")
kit.handle.httpCall = waiting("handle_httpCall")
kit.handle.respond = waiting("handle_respond")
local next_chunk = waiting("handle_nextChunk")
local check_chunks = raw.handle_bodyChunks
kit.handle.bodyChunks = function(self)
  local ok, why = check_chunks(self)
  if not ok then
    error(why, 2)
  end
  return function()
    return next_chunk(self)
  end
end
for _, name in ipairs({ "importPublicKey", "verifySignature", "setUpstreamOverrideHost" }) do
  kit.handle[name] = missing(name)
end

local headers = { "add", "get", "getAtIndex", "getNumValues", "remove", "replace", "setHttp1ReasonPhrase" }
kit.headers = methods("headers_", headers)
kit.headers_pairs = iterator("headers_")
kit.trailers = methods("trailers_", headers)
kit.trailers_pairs = iterator("trailers_")

kit.buffer = methods("buffer_", { "length", "getBytes", "setBytes" })

kit.metadata = methods("metadata_", { "get" })
kit.metadata_pairs = iterator("metadata_")
kit.filter_context = methods("filterContext_", { "get" })
kit.filter_context_pairs = iterator("filterContext_")

kit.stream_info = methods("streamInfo_", {
  "protocol", "routeName", "dynamicMetadata", "downstreamLocalAddress", "downstreamDirectLocalAddress",
  "downstreamRemoteAddress", "downstreamDirectRemoteAddress", "downstreamSslConnection", "requestedServerName",
})
for _, name in ipairs({
  "virtualClusterName", "dynamicTypedMetadata", "filterState", "drainConnectionUponCompletion",
}) do
  kit.stream_info[name] = missing(name)
end

kit.dynamic = methods("dynamic_", { "get", "set" })
kit.dynamic_pairs = iterator("dynamic_")

kit.connection = methods("connection_", { "ssl" })
kit.connection_info = {}
for _, name in ipairs({ "dynamicMetadata", "dynamicTypedMetadata" }) do
  kit.connection_info[name] = missing("connectionStreamInfo():" .. name)
end

kit.ssl = methods("ssl_", {
  "peerCertificatePresented", "peerCertificateValidated", "uriSanLocalCertificate", "uriSanPeerCertificate",
  "dnsSansLocalCertificate", "dnsSansPeerCertificate", "sha256PeerCertificateDigest", "serialNumberPeerCertificate",
  "issuerPeerCertificate", "subjectPeerCertificate", "subjectLocalCertificate",
  "urlEncodedPemEncodedPeerCertificate", "urlEncodedPemEncodedPeerCertificateChain",
  "validFromPeerCertificate", "expirationPeerCertificate", "ciphersuiteString", "tlsVersion",
})
for _, name in ipairs({
  "sessionId", "ciphersuiteId", "parsedSubjectPeerCertificate", "oidsPeerCertificate", "oidsLocalCertificate",
}) do
  kit.ssl[name] = missing(name)
end

EnvoyTimestampResolution = timestamp_resolution

return kit
