-- For wrk: requests for random keys of a node or router.
--
-- From the environment: OPERATION, get or put; KEYS, how many keys there are; DEPTH, how many requests are sent at once on a
-- connection; QUERY, such as ?proxy=true. Every request is wrk's own count of one, also where sixteen are sent at once.
local keys = tonumber(os.getenv("KEYS"))
local depth = tonumber(os.getenv("DEPTH") or "1")
local query = os.getenv("QUERY") or ""
local head, tail
local value = {}
for place = 0, 99 do value[#value + 1] = string.char(97 + place * 7 % 26) end

init = function()
  math.randomseed(os.time())
  local method = os.getenv("OPERATION") == "put" and "PUT" or "GET"
  head = method .. " /kv/key-"
  tail = query .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\n"
  if method == "PUT" then
    tail = tail .. "Content-Length: 100\r\n\r\n" .. table.concat(value)
  else
    tail = tail .. "\r\n"
  end
end

local parts = {}
request = function()
  for place = 1, depth do
    parts[place] = head .. string.format("%08d", math.random(0, keys - 1)) .. tail
  end
  return table.concat(parts, "", 1, depth)
end
