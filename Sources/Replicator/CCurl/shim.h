// libcurl's easy and multi interfaces. Swift cannot import variadic functions, so each use of
// curl_easy_setopt, curl_easy_getinfo and curl_multi_setopt gets a typed twin here.
#pragma once
#include <curl/curl.h>
