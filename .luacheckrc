-- Settings of luacheck for lua/: scripts run inside Redis, which is Lua 5.1 with a few globals of
-- its own and without those that reach outside.
std = {
   read_globals = {
      "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "getmetatable",
      "setmetatable", "rawequal", "rawget", "rawset", "tonumber", "tostring", "type", "unpack",
      "math", "string", "table",
      -- from Redis
      "KEYS", "ARGV", "redis", "cjson", "cmsgpack", "bit", "struct",
   },
}
max_line_length = 100
-- It counts bytes, and comments have a few letters of two.
max_comment_line_length = 104
-- Included as a whole: every script names all its keys, whether it uses them or not.
-- Some are included late, so that a call pays only for what it comes to; their parameters may have
-- names that the script has given before.
ignore = { "211/[A-Z][A-Z_]*", "431", "432" }
