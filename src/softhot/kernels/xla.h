// The kernel as XLA calls it: a handler of its foreign function interface, which is a stable C ABI.
//
// The structures below are the parts of that interface's version 0.1 that are read here, under names
// of our own; later versions only add to their ends. XLA asks for the version when the handler is
// registered and refuses one that it no longer speaks. What a call wants shows in what it brings:
//
//   logits, labels, shares                           -> losses
//   logits, labels, shares, factors                  -> losses, gradient times factors
//   logits, labels, shares, gradient, factors, other -> gradient times other factors, in its place
//
// The last computes only if the factors differ. All else is in the one attribute, a Call that
// kernels/xla.py has made.

#include <pthread.h>

// Every function is static: this is compiled once for each instruction set, and linked into one library.
namespace xla {

enum { METADATA = 1 };  // an extension
enum { CREATE_ERROR = 0, SCHEDULE = 11, COUNT_THREADS = 12 };  // functions
enum { INTERNAL = 13 };  // a code of errors

struct Extension {
  size_t size;
  int32_t type;
  Extension* next;
};

struct Version {
  size_t size;
  Extension* extensions;
  int32_t major, minor;
};

struct Metadata {
  size_t size;
  Version version;
};

struct MetadataExtension {
  Extension base;
  Metadata* metadata;
};

typedef void* (*Function)(void*);

struct Api {
  size_t size;
  Extension* extensions;
  Version version;
  const void* internal;
  Function functions[COUNT_THREADS + 1];
};

struct Buffer {
  size_t size;
  Extension* extensions;
  int32_t type;
  void* data;
  int64_t rank;
};

struct Buffers {
  size_t size;
  Extension* extensions;
  int64_t count;
  int32_t* types;
  Buffer** items;
};

struct Array {
  int32_t type;
  size_t count;
  void* data;
};

struct Attributes {
  size_t size;
  Extension* extensions;
  int64_t count;
  int32_t* types;
  void** names;
  Array** items;
};

struct Frame {
  size_t size;
  Extension* extensions;
  const Api* api;
  void* context;
  int32_t stage;
  Buffers arguments, results;
  Attributes attributes;
};

struct CreateError {
  size_t size;
  Extension* extensions;
  const char* message;
  int32_t code;
};

struct Schedule {
  size_t size;
  Extension* extensions;
  void* context;
  void (*task)(void*);
  void* data;
};

struct CountThreads {
  size_t size;
  Extension* extensions;
  void* context;
  int64_t* count;
};

// A call that others may help with. XLA's threads may be busy until long after it is done, and may be
// waiting for it: whoever comes late finds it closed, and nobody is waited for who has not come.
struct Crew {
  void (*body)(void*);
  void* job;
  int holders, inside;
  bool closed;
  pthread_mutex_t lock;
  pthread_cond_t left;
};

static void let_go(Crew* crew) {
  const bool last = --crew->holders == 0;
  pthread_mutex_unlock(&crew->lock);
  if (!last) return;
  pthread_cond_destroy(&crew->left);
  pthread_mutex_destroy(&crew->lock);
  free(crew);
}

static void help(void* with) {
  Crew* crew = (Crew*)with;
  pthread_mutex_lock(&crew->lock);
  if (!crew->closed) {
    crew->inside++;
    pthread_mutex_unlock(&crew->lock);
    crew->body(crew->job);
    pthread_mutex_lock(&crew->lock);
    if (--crew->inside == 0) pthread_cond_signal(&crew->left);
  }
  let_go(crew);
}

static thread_local const Frame* current;

// What GOMP_parallel does, on the threads that XLA runs its own loops on.
static void parallel(void (*body)(void*), void* job, unsigned threads, unsigned) {
  Crew* crew = (Crew*)malloc(sizeof(Crew));
  if (!crew) return body(job);
  crew->body = body, crew->job = job;
  crew->holders = (int)threads, crew->inside = 0, crew->closed = false;
  pthread_mutex_init(&crew->lock, 0);
  pthread_cond_init(&crew->left, 0);
  const Function schedule = current->api->functions[SCHEDULE];
  for (unsigned i = 1; i < threads; i++) {
    Schedule task = {sizeof task, 0, current->context, help, crew};
    if (!schedule(&task)) continue;
    pthread_mutex_lock(&crew->lock);  // what is not scheduled holds nothing
    crew->holders -= (int)(threads - i);
    pthread_mutex_unlock(&crew->lock);
    break;
  }
  body(job);
  pthread_mutex_lock(&crew->lock);
  crew->closed = true;
  while (crew->inside) pthread_cond_wait(&crew->left, &crew->lock);
  let_go(crew);
}

static void* error(const Frame* frame, const char* message) {
  CreateError arguments = {sizeof arguments, 0, message, INTERNAL};
  return frame->api->functions[CREATE_ERROR](&arguments);
}

static void* handle(Frame* frame) {
  if (frame->extensions && frame->extensions->type == METADATA) {
    Version& version = ((MetadataExtension*)frame->extensions)->metadata->version;
    version.major = 0, version.minor = 1;
    return 0;
  }
  const int64_t given = frame->arguments.count;
  const Array* packed = frame->attributes.count == 1 ? frame->attributes.items[0] : 0;
  if (!packed || packed->count != sizeof(Call) || (given != 3 && given != 4 && given != 6))
    return error(frame, "softhot: not a call of this version");
  Call call;
  memcpy(&call, packed->data, sizeof call);
  Buffer** const arguments = frame->arguments.items;
  Buffer** const results = frame->results.items;
  const float* factors = given > 3 ? (const float*)arguments[given - 1]->data : 0;
  if (given == 6 && !memcmp(arguments[4]->data, factors, call.n * sizeof *factors)) return 0;
  float sum;  // of the losses, where the gradient alone is wanted
  call.logits = arguments[0]->data;
  call.labels = arguments[1]->data;
  const float* share = (const float*)arguments[2]->data;
  if (arguments[2]->rank)
    call.alpha = share;
  else
    call.share = *share;
  call.loss = given == 6 ? &sum : (float*)results[0]->data;
  call.gradient = given == 3 ? 0 : results[given == 4]->data;
  call.scale = factors;
  int64_t threads = 1;
  CountThreads count = {sizeof count, 0, frame->context, &threads};
  if (call.threads > 1 && !frame->api->functions[COUNT_THREADS](&count)) {
    call.threads = call.threads < threads ? call.threads : (int32_t)threads;
    call.parallel = parallel;
  }
  current = frame;
  const int status = run(call);
  current = 0;
  if (status == NO_MEMORY) return error(frame, "softhot: no memory for a row of exponentials");
  return status ? error(frame, "softhot: a label is out of range, and validate=False trusted it") : 0;
}

}  // namespace xla
