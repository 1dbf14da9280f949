-- Sends the requests of a plan (see load.mjs), in turn, each once or as they are picked. Prints what wrk
-- measured as one line.
local plan = dofile(os.getenv('BENCH_PLAN'))
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init()
  local headers = { ['Authorization'] = 'Bearer ' .. plan.token }
  local body = nil
  if plan.body ~= '' then
    local file = io.open(plan.body, 'rb')
    body = file:read('*a')
    file:close()
    headers['Content-Type'] = plan.type
  end
  if #plan.bodies > 0 then
    headers['Content-Type'] = plan.type
  end
  at = -1 -- wrk asks for one request that it does not send.
  if plan.count > 0 then
    make = function(n) return wrk.format(plan.method, plan.prefix .. n .. plan.suffix, headers, body) end
    total = plan.count
  elseif plan.picks ~= '' then
    local reads, writes, picks = {}, {}, {}
    for i, path in ipairs(plan.reads) do
      reads[i] = wrk.format('GET', path, { ['Authorization'] = headers['Authorization'] })
    end
    for i, path in ipairs(plan.writes) do writes[i] = wrk.format('PUT', path, headers, body) end
    for line in io.lines(plan.picks) do picks[#picks + 1] = tonumber(line) end
    make = function(n)
      local pick = picks[n]
      return pick > 0 and reads[pick] or writes[-pick]
    end
    total = #picks
  elseif #plan.bodies > 0 then
    local made = {}
    for i, one in ipairs(plan.bodies) do made[i] = wrk.format(plan.method, plan.paths[1], headers, one) end
    make = function(n) return made[n] end
    total = #made
  else
    local made = {}
    for i, path in ipairs(plan.paths) do made[i] = wrk.format(plan.method, path, headers, body) end
    make = function(n) return made[n] end
    total = #made
  end
end

function request()
  at = at + 1
  if at > total then
    at = plan.count > 0 and total or 1
  end
  return make(math.max(at, 1))
end

-- Lets all connections be open before the first request is sent. wrk asks before each request. To each
-- latency that is longer than the usual one, it adds those of the requests which it kept back meanwhile. So
-- one late connection counts as fifty late requests.
if plan.wait_ms > 0 then
  local opened = 0
  delay = function()
    opened = opened + 1
    return opened <= plan.connections and plan.wait_ms or 0
  end
end

-- Tells load.mjs that each request of a counted plan is answered. wrk itself would go on until its time is
-- over. What is sent beyond the last one is the last one again.
local answers = 0
if plan.count > 0 then
  response = function()
    answers = answers + 1
    if answers == total then
      io.write('BENCHEND\n')
      io.flush()
    end
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'BENCH %d %d %d %d %d %d %d %d\n',
    summary.requests, summary.duration, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max
  ))
end
