-- What Envoy's scripts find and ours do not: said, not silent.
debug = setmetatable({}, {
  __index = function(_, name)
    error("debug." .. tostring(name) .. " is not supported: the debug library is not memory safe", 2)
  end,
})
package.loaded.debug = debug
package.preload.ffi = function()
  error("ffi is not supported: it is not memory safe", 2)
end
