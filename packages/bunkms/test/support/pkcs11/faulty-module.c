/*
 * A PKCS#11 module that is another one with faults. REAL_MODULE names the other one. The file FAULT holds the
 * name of the fault of now. The file LOGINS gets a line for each login. The file FRAME holds what the fault
 * "forge" writes to the pipe of answers.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CK_PTR *
#define CK_DECLARE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION_POINTER(type, name) type(*name)
#define CK_CALLBACK_FUNCTION(type, name) type(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include <pkcs11/pkcs11.h>

static CK_FUNCTION_LIST faulty;
static CK_FUNCTION_LIST *real;

static int has_fault(const char *name) {
  char text[32] = "";
  FILE *file = fopen(getenv("FAULT"), "r");
  if (file == NULL) return 0;
  if (fgets(text, sizeof text, file) == NULL) text[0] = 0;
  fclose(file);
  return strcmp(text, name) == 0;
}

static void forge(void) {
  char bytes[65536];
  FILE *file = fopen(getenv("FRAME"), "r");
  if (file == NULL) return;
  size_t length = fread(bytes, 1, sizeof bytes, file);
  fclose(file);
  if (write(3, bytes, length) < 0) return;
}

static void misbehave(void) {
  while (has_fault("hang")) usleep(10000);
  if (has_fault("crash")) abort();
  if (has_fault("forge")) forge();
  if (has_fault("scribble"))
    for (int fd = 1; fd < 32; fd++)
      if (write(fd, "a module logs here\n", 19) < 0) continue;
}

static CK_RV initialize(CK_VOID_PTR arguments) {
  while (has_fault("hang-at-start")) usleep(10000);
  return real->C_Initialize(arguments);
}

static CK_RV login(CK_SESSION_HANDLE session, CK_USER_TYPE type, CK_UTF8CHAR_PTR pin, CK_ULONG length) {
  FILE *file = fopen(getenv("LOGINS"), "a");
  if (file != NULL) {
    fputs("login\n", file);
    fclose(file);
  }
  return real->C_Login(session, type, pin, length);
}

static CK_RV token_info(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info) {
  CK_RV rv = real->C_GetTokenInfo(slot, info);
  if (has_fault("final-try")) info->flags |= CKF_USER_PIN_FINAL_TRY;
  if (has_fault("locked")) info->flags |= CKF_USER_PIN_LOCKED;
  return rv;
}

static CK_RV mechanisms(CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR list, CK_ULONG_PTR count) {
  CK_RV rv = real->C_GetMechanismList(slot, list, count);
  if (list != NULL && has_fault("no-mechanism"))
    for (CK_ULONG i = 0; i < *count; i++)
      if (list[i] == CKM_AES_GCM) list[i] = CKM_AES_CBC;
  return rv;
}

static CK_RV encrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG length, CK_BYTE_PTR out,
                     CK_ULONG_PTR out_length) {
  misbehave();
  return real->C_Encrypt(session, in, length, out, out_length);
}

static CK_RV decrypt(CK_SESSION_HANDLE session, CK_BYTE_PTR in, CK_ULONG length, CK_BYTE_PTR out,
                     CK_ULONG_PTR out_length) {
  misbehave();
  if (has_fault("away")) return CKR_DEVICE_REMOVED;
  return real->C_Decrypt(session, in, length, out, out_length);
}

CK_RV C_GetFunctionList(CK_FUNCTION_LIST_PTR_PTR list) {
  void *handle = dlopen(getenv("REAL_MODULE"), RTLD_NOW);
  CK_C_GetFunctionList get = handle == NULL ? NULL : (CK_C_GetFunctionList)dlsym(handle, "C_GetFunctionList");
  if (get == NULL || get(&real) != CKR_OK) return CKR_GENERAL_ERROR;
  faulty = *real;
  faulty.C_Initialize = initialize;
  faulty.C_Login = login;
  faulty.C_GetTokenInfo = token_info;
  faulty.C_GetMechanismList = mechanisms;
  faulty.C_Encrypt = encrypt;
  faulty.C_Decrypt = decrypt;
  *list = &faulty;
  return CKR_OK;
}
