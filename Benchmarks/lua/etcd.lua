-- For wrk: puts and gets of random keys through etcd's JSON gateway, which wants keys and values in base64.
--
-- From the environment: OPERATION, get or put; KEYS, how many keys there are. Gets are serializable: answered from the
-- member's own state, as a node answers reads.
local keys = tonumber(os.getenv("KEYS"))
local is_put = os.getenv("OPERATION") == "put"
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(bytes)
  local out = {}
  for start = 1, #bytes, 3 do
    local a, b, c = bytes:byte(start, start + 2)
    local word = a * 65536 + (b or 0) * 256 + (c or 0)
    for place, divisor in ipairs({ 262144, 4096, 64, 1 }) do
      local digit = math.floor(word / divisor) % 64
      out[#out + 1] = (place == 3 and not b or place == 4 and not c) and "=" or alphabet:sub(digit + 1, digit + 1)
    end
  end
  return table.concat(out)
end

local value = {}
for place = 0, 99 do value[#value + 1] = string.char(97 + place * 7 % 26) end
local tail = is_put and '","value":"' .. base64(table.concat(value)) .. '"}' or '","serializable":true}'
math.randomseed(os.time())

request = function()
  local body = '{"key":"' .. base64(string.format("key-%08d", math.random(0, keys - 1))) .. tail
  return wrk.format("POST", is_put and "/v3/kv/put" or "/v3/kv/range", nil, body)
end
